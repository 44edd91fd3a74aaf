"""Train missing experts, merge them by SyMerge, evaluate, and report: from a config to one multi-task model."""

from __future__ import annotations

import argparse

from symerge_dense.pipeline.config_files import CfgOptions, find_config

CONFIG = "a config file, or the name of one that comes with the package, e.g. rooms_symerge"
LAUNCHERS = ("none", "pytorch", "slurm")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument("--work-dir", help="folder of this run; default work_dirs/<config>/<date-time>")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. adaptation.rounds=100"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="of several processes")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # of launchers
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument("--no-train-experts", action="store_true", help="refuse instead of training missing experts")
    parser.add_argument("--seed", type=int, help="seed of the adaptation; experts keep experts.seed of the config")


def run(options: argparse.Namespace) -> None:
    """Run the main job."""
    path = find_config(options.config)
    from symerge_dense.engine.runner import join_processes
    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.train import train

    config = load_config(path, options.cfg_options or {}, options.seed)
    join_processes(options.launcher)
    train(
        config,
        work_dir=options.work_dir,
        resume=options.resume,
        launcher=options.launcher,
        amp=options.amp,
        train_experts=not options.no_train_experts,
    )
