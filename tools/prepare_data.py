#!/usr/bin/env python3
"""Convert a downloaded NYUv2, or check a prepared folder: the same as `symerge prepare-data`."""

import sys

from symerge_dense.commands.cli import tool

if __name__ == "__main__":
    sys.exit(tool("prepare-data"))
