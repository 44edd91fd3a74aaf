#!/usr/bin/env python3
"""Import an expert that another program trained: the same as `symerge import-expert`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("import-expert"))
