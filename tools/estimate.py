#!/usr/bin/env python3
"""What a run will compute: the same as `symerge estimate`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("estimate"))
