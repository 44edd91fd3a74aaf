#!/usr/bin/env python3
"""The checkpoint of one task from a packed merge (tools/merge.py --packed) and its base."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.pipeline.cli import end_like_ctrl_c, run_tool
from symerge_dense.pipeline.file_merge.unpack import FileUnpack


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("packed", help="the file of all tasks")
    add("--base", required=True, metavar="FILE", help="the base of that merge; it may have moved")
    add("--task", required=True, metavar="NAME", help="whose weights to write")
    add("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    add("--overwrite", action="store_true", help="replace --out")
    given = parser.parse_args()
    end_like_ctrl_c()
    FileUnpack(given.packed, given.base, given.task, given.out, given.overwrite).write()


if __name__ == "__main__":
    sys.exit(run_tool(main, "nothing was written"))
