#!/usr/bin/env python3
"""Cost of an adaptation step: the same as `symerge benchmark`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("benchmark"))
