"""Benchmarks. `step CONFIG`: one adaptation step against plain fine-tuning and against the public order of work."""

from __future__ import annotations

import argparse
import json

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, find_config


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("what", choices=("step",))
    parser.add_argument("config", help=CONFIG)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="image size; default: the config's")
    parser.add_argument("--rounds", type=int, default=7, help="of every contender, interleaved")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. backbone.name=resnet50"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    path = find_config(options.config)
    import torch
    from mmengine.device import get_device
    from rich.table import Table

    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.profiling.estimate import image_size
    from symerge_dense.pipeline.profiling.step import CONTENDERS, measure_step
    from symerge_dense.progress import console, silent

    config = load_config(path, options.cfg_options or {})
    size = tuple(options.size or image_size(config))
    with silent(options.json):
        result = measure_step(config, options.batch_size, size, options.rounds, torch.device(get_device()))
    if options.json:
        print(json.dumps(result))
        return
    table = Table(title=f"{config.name}: one step, batch {options.batch_size} of {size[0]}x{size[1]}")
    for column in ("contender", "seconds", "peak MiB"):
        table.add_column(column)
    for name in CONTENDERS:
        table.add_row(name, f"{result['seconds'][name]:.3f}", f"{result['peak_memory_mb'][name]:.0f}")
    console.print(table)
    console.print(
        f"ratio_to_floor {result['ratio_to_floor']:.2f}, speedup_over_reference {result['speedup_over_reference']:.2f}"
    )
