#!/usr/bin/env python3
"""All values of a config, as a run would see them: the same as `symerge config print`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("config", ["print", *sys.argv[1:]]))
