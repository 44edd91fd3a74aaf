#!/usr/bin/env python3
"""Put every merging method on the experts of a config: the same as `symerge compare`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("compare"))
