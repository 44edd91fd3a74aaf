#!/usr/bin/env python3
"""A model for other runtimes, checked against PyTorch: the same as `symerge export`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("export"))
