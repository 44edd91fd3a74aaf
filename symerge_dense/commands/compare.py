"""Put every merging method on the experts of a config: one table of what each reaches and costs."""

from __future__ import annotations

import argparse

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, find_config


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("config", help=CONFIG)
    add("--methods", nargs="+", metavar="NAME", help="only these (default: every registered method)")
    add(
        "--tuning",
        default="agreement",
        metavar="HOW",
        help="what scales are tuned by. agreement: with the experts' outputs on unlabelled images, no label is read; "
        "labels: Delta_m on a labelled split",
    )
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="METHOD.OPTION=VALUE",
        help="arguments of methods, for example iso_c.conv=mean; a scale that is set is not tuned",
    )
    add("--seeds", type=int, default=1, help="runs of each method whose result depends on a seed")
    add(
        "--adapted-from",
        metavar="MERGED",
        help="a merged model whose adapted layers are put on the encoders of all methods; default: those of this "
        "comparison's SyMerge",
    )
    add("--work-dir", help="folder of this comparison; default work_dirs/<config>_compare/<date-time>")
    add("--resume", action="store_true", help="go on with a comparison, or add --methods or --seeds to it")
    add("--no-train-experts", action="store_true", help="refuse instead of training missing experts")
    on_argument(parser)
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. adaptation.rounds=100")


def on_argument(parser: argparse.ArgumentParser) -> None:
    """Add where independent runs are done.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--on",
        metavar="ray[:ADDRESS]",
        help="spread independent runs over the machines of a Ray cluster, which share the folders: ray starts one on "
        "this machine, ray:auto joins the one that runs here",
    )


def run(options: argparse.Namespace) -> None:
    """Compare."""
    path = find_config(options.config)
    from symerge_dense.pipeline.comparison.run import compare_methods
    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.method_options import of_methods

    compare_methods(
        load_config(path, options.cfg_options or {}),
        options.work_dir,
        options.resume,
        methods=options.methods,
        options=of_methods(options.set),
        seeds=options.seeds,
        criterion=options.tuning,
        adapted_from=options.adapted_from,
        train_experts=not options.no_train_experts,
        on=options.on,
    )
