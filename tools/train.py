#!/usr/bin/env python3
"""Train missing experts, merge them by SyMerge, evaluate, report: the same as `symerge train`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("train"))
