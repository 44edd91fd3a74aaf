#!/usr/bin/env python3
"""Merge checkpoint files by a static method: the same as `symerge merge`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("merge"))
