"""Merge checkpoints of one architecture by a static method, from files to a file, however large they are.

Options of the method are given by their names: --density 0.2 --scale 1.0. `symerge merge --method ties --help` lists
those of a method, docs/methods.md has all methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

TAKES_MORE = True  # options of the method
INTERRUPTED = "nothing was written"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("--method", required=True, metavar="NAME", help="for example ties; a name that does not exist lists all")
    add(
        "--base",
        required=True,
        metavar="FILE",
        help="what the experts were fine-tuned from: .safetensors, a folder of its shards, or .pth",
    )
    file_arguments(parser)
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="options of the method, also those that are called like one of this command: method=ties",
    )
    add("--statistics", default="mean", help="running statistics of BatchNorm: mean, moments or pretrained")
    add(
        "--prefix",
        help="merge the tensors whose names start so; default: 'backbone.' of this package's models, else all; the "
        "others are not written",
    )
    add(
        "--heads",
        action="store_true",
        help="write one model of all tasks: the merged backbone and the heads of the experts, which are model files of "
        "this package",
    )
    add("--seed", type=int, default=0, help="of random methods")
    add("--task", metavar="NAME", help="whose weights to write, of a method that gives every task its own")
    add(
        "--packed",
        action="store_true",
        help="write all tasks of a method with masks (emr, tall_masks) into one file: one task vector, and one bit per "
        "weight and task; the unpack command gives a task's weights back",
    )
    shard_argument(parser)
    add("--device", help="where to compute, for example cuda; default: the CPU")
    add("--hash", action="store_true", help="record the SHA-256 of whole inputs, not of samples only")


def file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands take that write one file from those of several experts.

    Args:
        parser: of the command.
    """
    add = parser.add_argument
    add("--experts", required=True, nargs="+", metavar="NAME=FILE", help="for example depth=runs/depth.safetensors")
    add("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    add(
        "--key",
        nargs="+",
        default=[],
        metavar="KEY",
        help="of the network in checkpoints of several, for example teacher; NAME=KEY for one expert, base=KEY",
    )
    add("--ema", action="store_true", help="take averaged (EMA) weights, where a checkpoint has them")
    add("--dry-run", action="store_true", help="check the inputs, say what would be done, and stop")
    add("--overwrite", action="store_true", help="replace --out")


def shard_argument(parser: argparse.ArgumentParser) -> None:
    """Add the size of shards.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        help="write shards of at most this size, for example 2GB, and their index (OUT.index.json); default: one file",
    )


def more_help(words: Sequence[str]) -> str:
    """What --help adds for the method that --method names: its options, their defaults and meaning.

    Args:
        words: of the command line.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method")
    parser.add_argument("--import", dest="plugins", action="append", default=[])
    given = parser.parse_known_args(words)[0]
    if given.method is None:
        return "symerge merge --method NAME --help lists the options of a method."
    from symerge_dense.pipeline.method_options import describe_options  # takes seconds
    from symerge_dense.registry import import_plugins

    import_plugins(given.plugins)
    return describe_options(given.method)


def run(options: argparse.Namespace) -> None:
    """Merge, or say what a merge would do."""
    from symerge_dense.commands.cli import end_like_ctrl_c
    from symerge_dense.pipeline.file_merge.merge import FileMerge
    from symerge_dense.pipeline.method_options import flags, keys_of, method_of, named, settings

    merge = FileMerge(
        merger=method_of(options.method, {**flags(options.rest), **settings(options.set)}),
        base=options.base,
        experts=named(options.experts),
        out=options.out,
        statistics=options.statistics,
        prefix=options.prefix,
        keys=keys_of(options.key),
        ema=options.ema,
        heads=options.heads,
        seed=options.seed,
        task=options.task,
        device=options.device,
        overwrite=options.overwrite,
        shard_size=options.shard_size,
        hash_inputs=options.hash,
        packed=options.packed,
    )
    end_like_ctrl_c()
    (merge.plan if options.dry_run else merge.merge)()
