"""Import an expert that LibMTL, FusionBench, torchvision or mmsegmentation trained, without running its code."""

from __future__ import annotations

import argparse

FORMATS = ("auto", "libmtl", "fusionbench", "torchvision", "mmseg")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("checkpoint", help="best.pt, *.ckpt, *.pth or *.safetensors")
    add("--out", required=True, help="the model file to write, .safetensors")
    add("--task", nargs="+", default=[], metavar="TASK", help="of several, those wanted; THEIRS=OURS gives a new name")
    add("--format", choices=FORMATS, default="auto")
    add("--base", help="the weights it was fine-tuned from, e.g. resnet50-19c8e357.pth")
    add("--mean", nargs=3, type=float, metavar=("R", "G", "B"), help="subtracted from images in 0..255")
    add("--std", nargs=3, type=float, metavar=("R", "G", "B"), help="images are divided by it")
    add("--align-corners", choices=("true", "false"), help="of the upsampling of outputs")
    add("--output-stride", type=int, choices=(8, 16, 32), help="of the dilated backbone")
    add("--head", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. decode_head=FCNHead width=512")
    add("--overwrite", action="store_true", help="replace --out")


def run(options: argparse.Namespace) -> None:
    """Import."""
    from symerge_dense.command_line import literal, pairs
    from symerge_dense.experts.importing.importer import import_expert
    from symerge_dense.experts.importing.options import NetworkOptions

    head = {key: literal(text) for key, text in pairs(options.head, "KEY=VALUE", "--head width=512").items()}
    corners = None if options.align_corners is None else options.align_corners == "true"
    import_expert(
        options.checkpoint,
        options.out,
        tasks=options.task,
        kind=options.format,
        base=options.base,
        options=NetworkOptions(head, options.mean, options.std, corners, options.output_stride),
        overwrite=options.overwrite,
    )
