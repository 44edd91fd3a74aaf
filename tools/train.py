#!/usr/bin/env python3
"""Train missing experts, merge them by SyMerge, evaluate, and report: from a config to one multi-task model."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.engine.runner import join_processes
from symerge_dense.pipeline.cli import run_tool
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.train import train


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a file of configs/, for example configs/rooms_symerge.py")
    parser.add_argument("--work-dir", help="folder of this run; default work_dirs/<config>/<date-time>")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. adaptation.rounds=100")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--no-train-experts", action="store_true", help="refuse instead of training missing experts")
    parser.add_argument("--seed", type=int, help="seed of the adaptation; experts keep experts.seed of the config")
    return parser.parse_args(arguments)


def main() -> None:
    """Entry point."""
    options = parse()
    config = load_config(options.config, options.cfg_options, options.seed)
    join_processes(options.launcher)
    train(
        config,
        work_dir=options.work_dir,
        resume=options.resume,
        launcher=options.launcher,
        amp=options.amp,
        train_experts=not options.no_train_experts,
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
