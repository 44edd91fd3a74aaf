"""Write the checkpoint of one task from a packed merge (merge --packed) or packed experts (pack), and their base."""

from __future__ import annotations

import argparse

from symerge_dense.commands.merge import INTERRUPTED, shard_argument

__all__ = ["INTERRUPTED", "arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("packed", help="the file of all tasks")
    add("--base", required=True, metavar="FILE", help="the base that the file was made on; it may have moved")
    add("--task", required=True, metavar="NAME", help="whose weights to write")
    add("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    shard_argument(parser)
    add("--overwrite", action="store_true", help="replace --out")


def run(options: argparse.Namespace) -> None:
    """Unpack."""
    from symerge_dense.commands.cli import end_like_ctrl_c
    from symerge_dense.pipeline.file_merge.unpack import FileUnpack

    end_like_ctrl_c()
    FileUnpack(options.packed, options.base, options.task, options.out, options.overwrite, options.shard_size).write()
