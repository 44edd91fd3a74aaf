"""Train missing experts, merge them by SyMerge, evaluate, and report: from a config to one multi-task model.

Without labels and without a config: symerge train --experts depth=depth.safetensors seg=seg.safetensors \\
  --base base.safetensors --images photos --size 480 640
"""

from __future__ import annotations

import argparse

from symerge_dense.pipeline.config_files import CfgOptions, find_config

CONFIG = "a config file, or the name of one that comes with the package, e.g. rooms_symerge"
LAUNCHERS = ("none", "pytorch", "slurm")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("config", nargs="?", help=f"{CONFIG}; not needed with --experts, --base and --images")
    parser.add_argument("--experts", nargs="+", default=[], metavar="TASK=FILE", help="files of trained experts")
    parser.add_argument("--base", metavar="FILE", help="the weights that the experts were fine-tuned from")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="FOLDER",
        help="folders of images, or image files, to adapt on, in place of the config's data: the run needs no labels "
        "and reports the agreement with the experts",
    )
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="resize --images to this height and width"
    )
    parser.add_argument("--work-dir", help="folder of this run; default work_dirs/<config>/<date-time>")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. adaptation.rounds=100"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="of several processes")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # of launchers
    parser.add_argument(
        "--amp", action="store_true", help="mixed precision: bfloat16, or float16 on a GPU that lacks it"
    )
    parser.add_argument("--no-train-experts", action="store_true", help="refuse instead of training missing experts")
    parser.add_argument("--seed", type=int, help="seed of the adaptation; experts keep experts.seed of the config")


def run(options: argparse.Namespace) -> None:
    """Run the main job."""
    path = None if options.config is None else find_config(options.config)
    if options.size and not options.images:
        raise ValueError(
            "--size is the size of --images; give --images FOLDER too, or, for a data set of a config, set its size by "
            "--cfg-options."
        )
    if path is None and not (options.experts and options.images):
        raise ValueError(
            "give a config (symerge config list shows those that come with the package), or --experts TASK=FILE ..., "
            "--base FILE and --images FOLDER."
        )
    from symerge_dense.commands.cli import join
    from symerge_dense.pipeline.api import given_config
    from symerge_dense.pipeline.method_options import named
    from symerge_dense.pipeline.train import train

    config = given_config(
        path,
        options.cfg_options or {},
        seed=options.seed,
        experts=named(options.experts),
        base=options.base,
        images=options.images,
        size=options.size,
    )
    join(options.launcher)
    train(
        config,
        work_dir=options.work_dir,
        resume=options.resume,
        launcher=options.launcher,
        amp=options.amp,
        train_experts=not options.no_train_experts,
    )
