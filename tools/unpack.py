#!/usr/bin/env python3
"""The checkpoint of one task from a packed file: the same as `symerge unpack`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("unpack"))
