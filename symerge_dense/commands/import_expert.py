"""Import an expert that another program trained, without running its code.

LibMTL, FusionBench, torchvision, mmsegmentation:
  symerge import-expert best.pt --base resnet50.pth --out depth.safetensors
a plain state dict of a timm backbone and a head, of this package or of your own:
  symerge import-expert best.pth --format timm --backbone resnet18 --head MultiScale width=64 --task depth
      --base resnet18.pth --out depth.safetensors
  symerge import-expert best.pth --format timm --backbone resnet18 --head my_lab.heads:build --adapt-layer body.0
      --task depth --base resnet18.pth --out depth.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from symerge_dense.command_line import literal, pairs

FORMATS = ("auto", "libmtl", "fusionbench", "torchvision", "mmseg", "timm")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("checkpoint", help="best.pt, *.ckpt, *.pth or *.safetensors, or a folder of shards")
    add("--out", required=True, help="the model file to write, .safetensors")
    add("--task", nargs="+", default=[], metavar="TASK", help="of several, those wanted; THEIRS=OURS gives a new name")
    add("--format", choices=FORMATS, default="auto", help="timm: a plain state dict of a timm backbone and any head")
    add("--base", help="the weights it was fine-tuned from, e.g. resnet50-19c8e357.pth")
    add("--key", help="of the network in a checkpoint of several, for example teacher")
    add("--ema", action="store_true", help="take the averaged (EMA) weights")
    add("--backbone", nargs="+", default=[], metavar="NAME", help="timm's name, and arguments as KEY=VALUE")
    add(
        "--head",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options, e.g. decode_head=FCNHead width=512; with --format timm first the type: a registered name or a "
        "module:function of yours; or all of it as JSON",
    )
    add(
        "--adapt-layer",
        nargs="+",
        metavar="NAME",
        help="dotted names of the layers of your head that adaptation trains",
    )
    add("--rename", nargs="+", default=[], metavar="OLD=NEW", help="change the start of names in the file")
    add("--drop", nargs="+", default=[], metavar="PATTERN", help="leave out what the network does not need: 'aux.*'")
    add("--mean", nargs=3, type=float, metavar=("R", "G", "B"), help="subtracted from images in 0..255")
    add("--std", nargs=3, type=float, metavar=("R", "G", "B"), help="images are divided by it")
    add("--align-corners", choices=("true", "false"), help="of the upsampling of outputs")
    add("--output-stride", type=int, choices=(8, 16, 32), help="of the dilated backbone")
    add("--overwrite", action="store_true", help="replace --out")


def typed(words: Sequence[str], name: str, example: str) -> dict[str, Any]:
    """A spec from words: JSON, or a first word that is the type, and KEY=VALUE.

    Args:
        words: of the command line.
        name: of the key that the first word stands for.
        example: for the message.

    Raises:
        ValueError: words of another form.
    """
    if words and words[0].startswith("{"):
        try:
            found: dict[str, Any] = json.loads(" ".join(words))
        except ValueError as error:
            raise ValueError(f"{' '.join(words)!r} is no JSON ({error}); write {example}.") from error
        return found
    first = {name: words[0]} if words and "=" not in words[0] else {}
    return first | {key: literal(text) for key, text in pairs(words[len(first) :], "KEY=VALUE", example).items()}


def run(options: argparse.Namespace) -> None:
    """Import."""
    from symerge_dense.experts.importing.importer import import_expert
    from symerge_dense.experts.importing.options import NetworkOptions
    from symerge_dense.registry import import_plugins

    head = typed(options.head, "type", "--head width=512, or with --format timm --head MultiScale width=512")
    if ":" in str(head.get("type", "")):
        import_plugins([head["type"]])
    layers = {"adapt_layer": options.adapt_layer} if options.adapt_layer else {}
    plain = options.format == "timm" or bool(options.backbone or layers) or "type" in head
    corners = None if options.align_corners is None else options.align_corners == "true"
    import_expert(
        options.checkpoint,
        options.out,
        tasks=options.task,
        kind=options.format,
        base=options.base,
        options=NetworkOptions({} if plain else head, options.mean, options.std, corners, options.output_stride),
        overwrite=options.overwrite,
        key=options.key,
        ema=options.ema,
        backbone=typed(options.backbone, "name", "--backbone resnet18 output_stride=16") or None,
        head=head | layers if plain else None,
        rename=pairs(options.rename, "OLD=NEW", "--rename encoder.=backbone.", empty=True),
        drop=options.drop,
    )
