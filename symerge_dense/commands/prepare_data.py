"""Bring a downloaded NYUv2 into the layout that configs read, or check a folder that has it."""

from __future__ import annotations

import argparse

PACKAGINGS = ("mat", "parquet", "nyud_mt", "nyudv2", "npy")
INTERRUPTED = "the same command goes on"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    tools = parser.add_subparsers(dest="tool", required=True)
    nyuv2 = tools.add_parser("nyuv2", help="convert; run it again after an interruption and it goes on")
    nyuv2.add_argument("source", help="folder of the download")
    nyuv2.add_argument("--from", dest="packaging", choices=PACKAGINGS, required=True, help="how it is packed")
    nyuv2.add_argument("--out", help="folder to write; default data/nyuv2")
    nyuv2.add_argument("--classes", type=int, choices=(13, 40), default=13)
    nyuv2.add_argument("--size", nargs="+", metavar="SIDE", help="H W, or native; default 288 384, parquet native")
    nyuv2.add_argument("--crop", choices=("none", "eigen"), help="eigen: rows 45..470, columns 41..600 of each frame")
    nyuv2.add_argument("--normals", choices=("stored", "depth"), help="depth: computed from depth; default stored")
    nyuv2.add_argument("--normal-axes", metavar="AXES", help="what the stored channels are: --normal-axes=x,-y,z")
    nyuv2.add_argument("--splits", nargs="+", choices=("train", "val"), help="default both")
    nyuv2.add_argument("--jobs", type=int, default=1, help="processes that write, default 1")
    nyuv2.add_argument("--on", metavar="ray[:ADDRESS]", help="the machines of a Ray cluster, which share the folders")
    check = tools.add_parser("check", help="read every file of a prepared folder; exit code 1 where it finds faults")
    check.add_argument("root")
    check.add_argument("--classes", type=int, choices=(13, 40), default=13)
    check.add_argument("--sheet", metavar="PATH.png", help="also draw some images with their labels")


def run(options: argparse.Namespace) -> int:
    """Convert or check; returns the check's exit code."""
    if options.tool == "check":
        from symerge_dense.preparation.check.check import check_tool

        return check_tool(options.root, options.classes, options.sheet)
    from symerge_dense.preparation.convert.convert import convert_tool

    names = ("source", "packaging", "out", "classes", "size", "crop", "normals", "normal_axes", "splits", "jobs", "on")
    return convert_tool(**{name: getattr(options, name) for name in names})
