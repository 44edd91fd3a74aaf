#!/usr/bin/env python3
"""Evaluate a checkpoint on a labelled split: the same as `symerge test`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("test"))
