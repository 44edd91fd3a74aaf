"""Pack experts into one file, as task vectors of a few bits per weight; the unpack command gives each of them back."""

from __future__ import annotations

import argparse

from symerge_dense.commands.merge import INTERRUPTED, file_arguments

__all__ = ["INTERRUPTED", "arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("--base", required=True, metavar="FILE", help="what the experts were fine-tuned from; needed to unpack, too")
    file_arguments(parser)
    add("--bits", type=int, default=4, help="per weight and task, 1 to 8; default: 4")
    add(
        "--shared-bits",
        type=int,
        default=0,
        metavar="BITS",
        help="per weight of a vector that all tasks share (RTVQ), 1 to 8; default: 0, no such vector (TVQ)",
    )
    add(
        "--per",
        default="channel",
        help="what has a range of its own: channel (the first axis of a tensor), or tensor; default: channel",
    )
    add("--prefix", help="of the tensors that base and experts share; default: 'backbone.' of this package's models")


def run(options: argparse.Namespace) -> None:
    """Pack, or say what would be packed."""
    from symerge_dense.commands.cli import end_like_ctrl_c
    from symerge_dense.merging.packed_experts import Packing
    from symerge_dense.pipeline.file_merge.pack import FilePack
    from symerge_dense.pipeline.method_options import keys_of, named

    pack = FilePack(
        base=options.base,
        experts=named(options.experts),
        out=options.out,
        packing=Packing(options.bits, options.shared_bits, options.per),
        prefix=options.prefix,
        keys=keys_of(options.key),
        ema=options.ema,
        overwrite=options.overwrite,
    )
    end_like_ctrl_c()
    (pack.plan if options.dry_run else pack.write)()
