#!/usr/bin/env python3
"""Merge checkpoints of one architecture by a static method, from files to a file, however large they are."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.pipeline.cli import end_like_ctrl_c, run_tool
from symerge_dense.pipeline.file_merge.merge import FileMerge
from symerge_dense.pipeline.method_options import flags, method_of, named, settings
from symerge_dense.registry import MERGERS


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it may be options of the method."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        epilog="Options of the method are given "
        "by their names: --density 0.2 --scale 1.0. docs/methods.md has all methods.",
    )
    add = parser.add_argument
    add("--method", required=True, help=", ".join(MERGERS))
    add(
        "--base",
        required=True,
        metavar="FILE",
        help="what the experts were fine-tuned from: .safetensors, a folder of its shards, or .pth",
    )
    add("--experts", required=True, nargs="+", metavar="NAME=FILE", help="for example depth=runs/depth.safetensors")
    add("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="the same, also for options that are called like one of this tool: method=ties",
    )
    add("--statistics", default="mean", help="running statistics of BatchNorm: mean, moments or pretrained")
    add(
        "--prefix",
        help="merge the tensors whose names start so; default: 'backbone.' of this package's models, else "
        "all; the others are not written",
    )
    add("--seed", type=int, default=0, help="of random methods")
    add("--task", metavar="NAME", help="whose weights to write, of a method that gives every task its own")
    add(
        "--packed",
        action="store_true",
        help="write all tasks of a method with masks (emr, tall_masks) into one file: "
        "one task vector, and one bit per weight and task; tools/unpack.py gives a task's weights back",
    )
    add("--device", help="where to compute, for example cuda; default: the CPU")
    add("--hash", action="store_true", help="record the SHA-256 of whole inputs, not of samples only")
    add("--dry-run", action="store_true", help="check the inputs, say what would be done, and stop")
    add("--overwrite", action="store_true", help="replace --out")
    return parser.parse_known_args()


def main() -> None:
    """Entry point."""
    given, options = parse()
    merger = method_of(given.method, {**flags(options), **settings(given.set)})
    job = FileMerge(
        merger,
        given.base,
        named(given.experts),
        given.out,
        given.statistics,
        given.prefix,
        given.seed,
        given.task,
        given.device,
        given.overwrite,
        given.hash,
        given.packed,
    )
    end_like_ctrl_c()
    (job.plan if given.dry_run else job.merge)()


if __name__ == "__main__":
    sys.exit(run_tool(main, "nothing was written"))
