#!/usr/bin/env python3
"""Tables of finished runs: the same as `symerge report`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("report"))
