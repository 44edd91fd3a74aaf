#!/usr/bin/env python3
"""Put every merging method on the experts of a config: one table of what each reaches and costs."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.pipeline.cli import run_tool
from symerge_dense.pipeline.comparison.comparison import compare_methods
from symerge_dense.pipeline.comparison.tuning import CRITERIA
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.method_options import of_methods


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a file of configs/, for example configs/rooms_symerge.py")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these (default: every registered method)")
    parser.add_argument(
        "--tuning",
        default="agreement",
        metavar="HOW",
        help="; ".join(f"{name}: {meaning}" for name, meaning in CRITERIA.items()),
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="METHOD.OPTION=VALUE",
        help="arguments of methods, for example iso_c.conv=mean; a scale that is set is not tuned",
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each method whose result depends on a seed")
    parser.add_argument(
        "--adapted-from",
        metavar="MERGED",
        help="a merged model whose adapted layers are put on the "
        "encoders of all methods; default: those of this comparison's SyMerge",
    )
    parser.add_argument("--work-dir", help="folder of this comparison; default work_dirs/<config>_compare/<date-time>")
    parser.add_argument("--resume", action="store_true", help="go on with a comparison, or add --methods to it")
    parser.add_argument("--no-train-experts", action="store_true", help="refuse instead of training missing experts")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. adaptation.rounds=100")
    options = parser.parse_args()
    config = load_config(options.config, options.cfg_options)
    compare_methods(
        config,
        options.work_dir,
        options.resume,
        methods=options.methods,
        options=of_methods(options.set),
        seeds=options.seeds,
        criterion=options.tuning,
        adapted_from=options.adapted_from,
        train_experts=not options.no_train_experts,
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
