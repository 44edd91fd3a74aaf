"""Write a model for other runtimes, checked against PyTorch: ONNX, torch.export, slim weights, timm, or the Hub.

Preprocessing and upsampling are inside: images go in as RGB in 0..255, outputs come out at their size. The largest
difference of every task from PyTorch is printed; one that is too large leaves no file and ends with exit code 2.
"""

from __future__ import annotations

import argparse

from symerge_dense.commands.merge import INTERRUPTED

__all__ = ["INTERRUPTED", "arguments", "run"]

TARGETS = ("onnx", "torch-export", "safetensors", "hub")
GRAPHS = ("onnx", "torch-export")
# options and what they are for; given with another --to, they would be ignored
ONLY = {
    "size": GRAPHS,
    "dynamic": GRAPHS,
    "outputs": GRAPHS,
    "input": GRAPHS,
    "opset": ("onnx",),
    "fp16": (*GRAPHS, "safetensors"),
    "timm": ("safetensors",),
    "run": ("hub",),
    "license": ("hub",),
    "repo_id": ("hub",),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("model", help="an expert or a merged model, .safetensors, or a folder of the Hub")
    add("--to", required=True, choices=TARGETS, help="what to write")
    add("--out", required=True, metavar="FILE", help=".onnx, .pt2 or .safetensors; of --to hub, a folder")
    add("--tasks", nargs="+", default=[], metavar="TASK", help="the wanted ones; default: all")
    add("--size", nargs=2, type=int, metavar=("H", "W"), help="of the images; default: what the model learned on")
    add(
        "--dynamic",
        nargs="?",
        const="all",
        choices=("batch", "all"),
        help="leave open how many images a call has (batch), or that and their size (all, the default)",
    )
    add("--fp16", action="store_true", help="16-bit weights; a graph's inputs and outputs stay 32-bit")
    add("--outputs", choices=("raw", "decided"), help="raw (default), or class ids, metres, unit vectors")
    add("--input", choices=("float32", "uint8"), help="type of the images, both 0..255; default: float32")
    add("--opset", type=int, help="of ONNX, 18 (default) to 23")
    add("--check", nargs="+", default=[], metavar="IMAGE", help="files or folders to check on; default: rendered rooms")
    add("--timm", action="store_true", help="of --to safetensors: the backbone alone, as timm's state dict")
    add("--run", metavar="FOLDER", help="of --to hub: the run that made the model, for the model card")
    add("--license", metavar="NAME", help="of --to hub: of the weights, e.g. apache-2.0 or cc-by-nc-4.0")
    add("--repo-id", metavar="USER/NAME", help="of --to hub: its name there; default: the folder's")
    add("--overwrite", action="store_true", help="replace --out")


def run(options: argparse.Namespace) -> None:
    """Export."""
    from symerge_dense.commands.cli import end_like_ctrl_c

    _check_fit(options)
    end_like_ctrl_c()
    common = {name: getattr(options, name) for name in ("model", "out", "tasks", "check", "overwrite")}
    if options.to in GRAPHS:
        from symerge_dense.inference.export import OPSETS, Export
        from symerge_dense.inference.export_graph import GraphOptions

        graph = GraphOptions(
            size=tuple(options.size) if options.size else None,
            dynamic=options.dynamic or "no",
            fp16=options.fp16,
            outputs=options.outputs or "raw",
            input_type=options.input or "float32",
        )
        Export(
            to=options.to, graph=graph, opset=OPSETS[0] if options.opset is None else options.opset, **common
        ).write()
        return
    from symerge_dense.inference.export_weights import WeightsExport

    weights = WeightsExport(fp16=options.fp16, **common)
    if options.to == "hub":
        weights.write_hub(options.run, options.license, options.repo_id)
    elif options.timm:
        weights.write_timm()
    else:
        weights.write()


def _check_fit(options: argparse.Namespace) -> None:
    for name, targets in ONLY.items():
        if getattr(options, name) not in (None, False) and options.to not in targets:
            raise ValueError(
                f"--{name.replace('_', '-')} is for --to {' and '.join(targets)}, not {options.to}; leave it out."
            )
    if options.timm and options.tasks:
        raise ValueError("--tasks: --timm writes the backbone alone, which all tasks share; leave it out.")
