#!/usr/bin/env python3
"""Import an expert that LibMTL, FusionBench, torchvision or mmsegmentation trained, without running its code."""

from __future__ import annotations

import argparse
import ast
import sys
from typing import Any

from symerge_dense.experts.importing.formats import FORMATS
from symerge_dense.experts.importing.importer import import_expert
from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.pipeline.cli import run_tool


def key_value(text: str) -> tuple[str, Any]:
    """'in_index=3' as ('in_index', 3); what is no literal stays text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return key, value


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("checkpoint", help="best.pt, *.ckpt, *.pth or *.safetensors")
    add("--out", required=True, help="the model file to write, .safetensors")
    add("--task", nargs="+", default=[], metavar="TASK", help="of several, those wanted; THEIRS=OURS gives a new name")
    add("--format", choices=("auto", *FORMATS), default="auto")
    add("--base", help="the weights it was fine-tuned from, e.g. resnet50-19c8e357.pth")
    add("--mean", nargs=3, type=float, metavar=("R", "G", "B"), help="subtracted from images in 0..255")
    add("--std", nargs=3, type=float, metavar=("R", "G", "B"), help="images are divided by it")
    add("--align-corners", choices=("true", "false"), help="of the upsampling of outputs")
    add("--output-stride", type=int, choices=(8, 16, 32), help="of the dilated backbone")
    add("--head", nargs="+", default=[], type=key_value, metavar="KEY=VALUE", help="e.g. decode_head=FCNHead width=512")
    add("--overwrite", action="store_true", help="replace --out")
    return parser.parse_args(arguments)


def main() -> None:
    """Entry point."""
    given = parse()
    corners = None if given.align_corners is None else given.align_corners == "true"
    options = NetworkOptions(dict(given.head), given.mean, given.std, corners, given.output_stride)
    import_expert(
        given.checkpoint,
        given.out,
        tasks=given.task,
        kind=given.format,
        base=given.base,
        options=options,
        overwrite=given.overwrite,
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
