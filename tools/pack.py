#!/usr/bin/env python3
"""Experts in one file, at a few bits per weight: the same as `symerge pack`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("pack"))
