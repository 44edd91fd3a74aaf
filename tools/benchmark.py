#!/usr/bin/env python3
"""Benchmarks. `step CONFIG`: one adaptation step against plain fine-tuning and against the public order of work."""

from __future__ import annotations

import argparse
import json
import sys

import torch
from mmengine.device import get_device
from rich.table import Table

from symerge_dense.pipeline.cli import run_tool
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.profiling.step import CONTENDERS, measure
from symerge_dense.progress import console, silent


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step",))
    parser.add_argument("config")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="image size; default: the config's")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    config = load_config(options.config, options.cfg_options)
    size = tuple(options.size or config.data["train"].get("size") or config.data["train"]["type"].DEFAULT_SIZE)
    with silent(options.json):
        result = measure(config, options.batch_size, size, options.rounds, torch.device(get_device()))
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


if __name__ == "__main__":
    sys.exit(run_tool(main))
