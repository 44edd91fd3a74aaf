#!/usr/bin/env python3
"""Predict images, videos or a camera with a finished model: the same as `symerge predict`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("predict"))
