"""Check the data of a config before training: every image and label is read. Exit code 1 where there are faults."""

from __future__ import annotations

import argparse

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, find_config

INTERRUPTED = "nothing was changed"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument(
        "--split", default="all", help="train, unlabelled, test, or another one of the config's; default all"
    )
    parser.add_argument("--sheet", metavar="PATH.png", help="also draw some images with their labels")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. data.train.root=photos"
    )


def run(options: argparse.Namespace) -> int:
    """Check and print; returns 1 where there are faults, else 0."""
    path = find_config(options.config)
    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.data_check import check

    report = check(load_config(path, options.cfg_options or {}), options.split, options.sheet)
    report.print()
    return 1 if report.faults else 0
