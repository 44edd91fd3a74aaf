#!/usr/bin/env python3
"""Check the data of a config: the same as `symerge check`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("check"))
