#!/usr/bin/env python3
"""Test a claim of the method: the same as `symerge study`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("study"))
