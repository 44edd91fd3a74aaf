"""Predict images, videos or a camera with a merged model or an expert: pictures, videos, and files of numbers.

  symerge predict merged.safetensors photos/ --out predictions            image and all tasks side by side
  symerge predict merged.safetensors clip.mp4 --out predictions           the same as predictions/panels/clip.mp4
  symerge predict merged.safetensors photos/ --out predictions --raw png  depth in millimetres, class ids, ...
  symerge predict merged.safetensors photos/ --against depth.safetensors segmentation.safetensors   frames a second

A file that cannot be read is named, the rest goes on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from symerge_dense.inference.outputs import Pictures
    from symerge_dense.inference.predictor import Predictor
    from symerge_dense.inference.run import Report
    from symerge_dense.inference.sources import Source

INTERRUPTED = "the files that are there are complete"
DATA_SET = "dataset.json"
RAW = ("png", "npz", "exr")
WORKERS = 4


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument(
        "model",
        help="a merged model's or an expert's .safetensors, an exported .onnx, or the folder of a run or of the Hub",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, videos, folders, quoted patterns, or a camera, camera:0"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of what is written")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these; default: all of the model")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--panel", action="store_true", help="image and all tasks side by side (the default)")
    pictures.add_argument("--overlay", action="store_true", help="each task's colours over the image")
    pictures.add_argument("--separate", action="store_true", help="each task's colours alone")
    parser.add_argument("--raw", choices=RAW, help="files of numbers, which FolderDataset reads back")
    parser.add_argument("--alpha", type=float, default=0.6, help="how much of the colours an overlay has, 0..1")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize images to this for the model")
    size.add_argument("--native", action="store_true", help="give the model each image's own size")
    parser.add_argument(
        "--tile", type=int, nargs="?", const=True, metavar="SIDE", help="large images in overlapping tiles"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the best one")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--fps", type=float, help="frames a second of written videos; default: as the input")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N frames of each video and camera, N images")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="threads that read, and that write")
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="EXPERT",
        help="write nothing: measure the model against these files (or a quoted pattern), one by one",
    )


def run(options: argparse.Namespace) -> int:
    """Predict, and say what was written and what could not be read."""
    _check(options)
    from symerge_dense.inference.sources import find_sources

    sources = _limited(find_sources(options.inputs), options.limit)
    if options.against:
        return _against(options, sources)
    from symerge_dense.inference.outputs import OutputOptions
    from symerge_dense.inference.run import predict_files

    predictor = _predictor(options.model, options)
    pictures: Pictures | None = "overlay" if options.overlay else "separate" if options.separate else "panel"
    pictures = None if options.raw and not (options.overlay or options.separate or options.panel) else pictures
    written = OutputOptions(options.out, pictures, options.raw, options.fps, options.alpha)
    report = predict_files(predictor, sources, written, options.limit, options.workers)
    return _tell(options, predictor, report)


def _check(options: argparse.Namespace) -> None:
    for name in ("limit", "fps", "workers", "batch"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} {value}: must be positive.")
    if not 0 <= options.alpha <= 1:
        raise ValueError(f"--alpha {options.alpha}: how much of the colours, from 0 to 1.")
    if options.out is None and not options.against:
        raise ValueError("--out DIR is missing: the folder that predictions are written to.")
    if options.out is not None and options.against:
        raise ValueError("--against measures and writes nothing; leave out --out.")


def _predictor(model: str, options: argparse.Namespace) -> Predictor:
    from symerge_dense.inference.predictor import Predictor

    size: Literal["native"] | list[int] | None = "native" if options.native else options.size
    return Predictor(model, options.device, size, options.batch, options.tile, options.flip, options.tasks, options.amp)


def _limited(sources: list[Source], limit: int | None) -> list[Source]:
    """All videos and cameras, and the first images."""
    images = [source for source in sources if source.kind == "image"][:limit]
    kept = {source.name for source in images}
    return [source for source in sources if source.kind != "image" or source.name in kept]


def _tell(options: argparse.Namespace, predictor: Predictor, report: Report) -> int:
    """Print what happened; the exit code."""
    from symerge_dense.commands.cli import complain
    from symerge_dense.inference.raw_files import data_set, reading_line, write_data_set
    from symerge_dense.progress import say

    say(f"{report.frames} frames in {report.seconds:.1f} s, {report.rate:.1f} frames/s: {options.out}")
    for task, share in report.cut.items():
        low, high = predictor.tasks[task].storage.range
        say(
            f"{task}: up to {share:.1%} of an image's values lie outside of {low:.5g} to {high:.5g}, which its PNG "
            "files can hold, and were cut; --raw npz or exr keeps them."
        )
    if options.raw and report.frames:
        found = data_set(options.out, report.images, options.raw, predictor.tasks)
        write_data_set(options.out / DATA_SET, found)
        told = "" if "images" in found else ", after giving root= and images= of your images"
        say(f"read them back by this ({options.out / DATA_SET}){told}:\n{reading_line(found)}")
    for fault in report.faults:
        complain(f"skipped: {fault}")
    return 1 if report.faults else 0


def _against(options: argparse.Namespace, sources: list[Source]) -> int:
    """Measure, and print a table."""
    from rich.table import Table

    from symerge_dense.inference.sources import frames_of
    from symerge_dense.inference.speed import MOST_IMAGES, compare_speed
    from symerge_dense.progress import console

    merged = _predictor(options.model, options)
    experts = {}
    for path in [path for given in options.against for path in sorted(glob.glob(given)) or [given]]:
        experts[path] = _predictor(path, argparse.Namespace(**{**vars(options), "tasks": None}))
    images = []
    for frame in frames_of(sources, options.limit, options.workers):
        images += [frame.pixels] if frame.pixels is not None else []
        if len(images) == MOST_IMAGES:
            break
    found = compare_speed(merged, experts, images)
    table = Table("model", "frames/s", "parameters", title=f"{len(images)} images, all tasks of a frame")
    for name, speed in found.items():
        table.add_row(name, f"{speed.rate:.2f}", f"{speed.parameters:,}" if speed.parameters else "-")
    console.print(table)
    console.print(f"one model is {found['merged'].rate / found['experts'].rate:.2f} times as fast")
    return 0
