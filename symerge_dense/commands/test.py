"""Evaluate a checkpoint of one task or of many (an expert, or a merged model) on a labelled split of a config."""

from __future__ import annotations

import argparse
import json

from symerge_dense.commands.check import INTERRUPTED
from symerge_dense.commands.train import CONFIG, LAUNCHERS
from symerge_dense.pipeline.config_files import CfgOptions, find_config

__all__ = ["INTERRUPTED", "arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("config", help=f"whose data are used: {CONFIG}")
    parser.add_argument("checkpoint", help="an expert's or a merged model's .safetensors")
    parser.add_argument("--split", default="test", help="entry of the config's data: test, unlabelled, train")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. data.test.count=9"
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="of several processes")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # of launchers
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(options: argparse.Namespace) -> None:
    """Score the checkpoint and print its metrics."""
    path = find_config(options.config)
    from mmengine.dist import is_main_process

    from symerge_dense.commands.cli import join
    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.score import test

    config = load_config(path, options.cfg_options or {})
    join(options.launcher)
    scores = test(config, options.checkpoint, options.split, quiet=options.json)
    if options.json and is_main_process():
        print(json.dumps(scores))
