#!/usr/bin/env python3
"""Cost of merging large files: the same as `symerge benchmark-merge`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("benchmark-merge"))
