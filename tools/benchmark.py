#!/usr/bin/env python3
"""Seconds and memory of steps, inference, merges and the demo: the same as `symerge benchmark`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("benchmark"))
