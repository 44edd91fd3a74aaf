"""Benchmarks: seconds and memory of contenders that take turns, in one table.

step [CONFIG]       an adaptation step against plain fine-tuning and against the public code's order of work
inference [CONFIG]  a merged model against its experts one after the other, in PyTorch and exported to ONNX
merge               merging and packing large checkpoint files against reading and writing their bytes
experts             an adaptation to many experts, with task vectors in memory and on disk
demo                the main job from nothing, in small, stage by stage
all                 these five; without a GPU step and inference leave out ResNet-50 at 288x384, half of their time
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symerge_dense.commands.train import CONFIG
from symerge_dense.fileio import check_writable
from symerge_dense.pipeline.config_files import CfgOptions, find_config

if TYPE_CHECKING:
    from symerge_dense.pipeline.profiling.table import Row

TITLES = {  # the demo first: its peak of memory is that of this process, which the others fill
    "demo": "The main job in small; share of the whole; peak memory",
    "step": "One step; ratio to plain fine-tuning; peak memory",
    "inference": "Inference; ratio to the experts in PyTorch; memory of the backbones",
    "merge": "Merging files; ratio to reading all bytes and writing one file; memory without that of files",
    "experts": "Many experts; ratio to task vectors in memory; memory without that of files",
}
ROUNDS = {"step": 7, "inference": 20, "merge": 3, "experts": 1}
TAKES = {
    "step": {"config", "batch_size", "size", "rounds", "cfg_options"},
    "inference": {"config", "size", "rounds", "cfg_options"},
    "merge": {"dir", "gigabytes", "experts", "methods", "threads", "memory", "keep", "rounds"},
    "experts": {"dir", "experts", "threads", "memory", "rounds"},
}
"""{suite: what it takes}; the others take nothing."""
DEFAULTS: dict[str, Any] = {
    "batch_size": 8,
    "gigabytes": 1.2,
    "experts": 8,
    "methods": ["task_arithmetic", "ties"],
    "threads": 2,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("suite", choices=(*TITLES, "all"))
    add = parser.add_argument
    add("config", nargs="?", help=f"of step and inference (default: the cases of the suite): {CONFIG}")
    add("--batch-size", type=int, help=f"of step with a config; default {DEFAULTS['batch_size']}")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="image size of a config; default: its own")
    defaults = ", ".join(f"{rounds} ({suite})" for suite, rounds in ROUNDS.items())
    add("--rounds", type=int, help=f"of every contender, in turn; default {defaults}")
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. backbone.name=resnet50")
    add(
        "--dir",
        type=Path,
        help="of merge and experts: a new folder, or one of --keep; default: temporary",
    )
    add("--gigabytes", type=float, help=f"of one checkpoint of merge, float32; default {DEFAULTS['gigabytes']}")
    add("--experts", type=int, help=f"of merge and experts; default {DEFAULTS['experts']}")
    add("--methods", nargs="+", help=f"of merge, also pack and unpack; default {' '.join(DEFAULTS['methods'])}")
    add("--threads", type=int, help=f"of merge and experts; default {DEFAULTS['threads']}")
    add(
        "--memory",
        type=float,
        metavar="GB",
        help="of merge and experts: a process that takes more, without that of files, ends the run; experts then has "
        "its task vectors on disk only",
    )
    add("--keep", action="store_true", default=None, help="keep the checkpoints of merge in --dir for another run")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--append", type=Path, metavar="PAGE", help="add the tables, machine and commit to a Markdown page")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    _check(options)
    from symerge_dense.pipeline.profiling.table import append_section, print_rows, record
    from symerge_dense.progress import console, silent

    measured: dict[str, list[Row]] = {}
    for suite in TITLES if options.suite == "all" else [options.suite]:
        with silent(options.json):
            measured[suite] = list(_rows(suite, options))
        if not options.json:
            print_rows(f"{suite}: {TITLES[suite]}", measured[suite], console)
    if options.append is not None:
        append_section(options.append, _command(options), measured, TITLES)
    if options.json:
        print(json.dumps(record(measured)))


def _check(options: argparse.Namespace) -> None:
    allowed = TAKES.get(options.suite, set())
    for name in set().union(*TAKES.values()) - allowed:
        if getattr(options, name) is not None:
            shown = "a config" if name == "config" else f"--{name.replace('_', '-')}"
            suites = " and ".join(suite for suite, takes in TAKES.items() if name in takes)
            raise ValueError(f"benchmark {options.suite} does not take {shown}, which is of {suites}; leave it out.")
    if options.config is not None:
        options.config = find_config(options.config)
    elif "config" in allowed:
        for name in ("batch_size", "size", "rounds", "cfg_options"):
            if getattr(options, name) is not None:
                shown = f"--{name.replace('_', '-')}"
                raise ValueError(f"{shown} is of a config; name one: symerge benchmark {options.suite} CONFIG.")
    if options.keep and options.dir is None:
        raise ValueError("--keep needs a folder; name one by --dir.")
    if options.append is not None and options.append.suffix != ".md":
        raise ValueError(f"--append {options.append}: a Markdown page ends in .md.")
    if options.append is not None and options.append.is_dir():
        raise ValueError(f"--append {options.append} is a folder; name a page in it, or another one.")
    if options.append is not None:
        try:
            if options.append.exists():
                options.append.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"--append {options.append} is not a text in UTF-8; name another page.") from error
        check_writable(options.append.absolute().parent)


def _command(options: argparse.Namespace) -> str:
    """What was asked for, as a command line."""
    words = ["symerge benchmark", options.suite, *([options.config.stem] if options.config else [])]
    for name in sorted(TAKES.get(options.suite, set()) - {"config"}):
        value = getattr(options, name)
        if value is not None:
            given = [f"{key}={part}" for key, part in value.items()] if isinstance(value, dict) else value
            listed = given if isinstance(given, list) else [] if given is True else [given]
            words += [f"--{name.replace('_', '-')}", *map(str, listed)]
    return " ".join(words)


def _rows(suite: str, options: argparse.Namespace) -> Iterable[Row]:
    import torch
    from mmengine.device import get_device

    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.profiling.demo import demo_rows
    from symerge_dense.pipeline.profiling.estimate import image_size
    from symerge_dense.pipeline.profiling.inference import BATCHES, inference_rows, measure_inference
    from symerge_dense.pipeline.profiling.step import measure_step, step_rows

    device = torch.device(get_device())
    rounds = ROUNDS.get(suite, 1) if options.rounds is None else options.rounds
    if suite == "merge":
        return _merge_rows(options, rounds)
    if suite == "experts":
        return _many_expert_rows(options, rounds)
    if suite == "demo":
        return demo_rows()
    if options.config is None:
        large = options.suite != "all" or device.type != "cpu"
        return step_rows(device, large) if suite == "step" else inference_rows(device, large)
    config = load_config(options.config, options.cfg_options or {})
    height, width = options.size or image_size(config)
    if suite == "inference":
        return measure_inference(config, (height, width), [rounds] * len(BATCHES), device)
    return measure_step(config, _given(options, "batch_size"), (height, width), rounds, device)


def _merge_rows(options: argparse.Namespace, rounds: int) -> list[Row]:
    from symerge_dense.pipeline.profiling.file_merge import merge_rows, remove

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.dir or Path(temporary) / "merge"
        given = {name: _given(options, name) for name in ("gigabytes", "experts", "methods", "threads")}
        rows = merge_rows(folder, **given, rounds=rounds, memory=options.memory)
        if not options.keep:
            remove(folder)
    return rows


def _many_expert_rows(options: argparse.Namespace, rounds: int) -> list[Row]:
    from symerge_dense.pipeline.profiling.many_experts import many_expert_rows

    if options.dir is not None and options.dir.exists() and any(options.dir.iterdir()):
        raise ValueError(f"--dir {options.dir} is not empty; name a new folder.")
    if options.dir is not None:
        options.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as temporary:
        given = {name: _given(options, name) for name in ("experts", "threads")}
        return many_expert_rows(Path(temporary), **given, rounds=rounds, memory=options.memory)


def _given(options: argparse.Namespace, name: str) -> Any:
    value = getattr(options, name)
    return DEFAULTS[name] if value is None else value
