"""What a config will cost before it is run: parameters, operations per image, and the time of each stage by a speed."""

from __future__ import annotations

import argparse

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, find_config


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("config", help=CONFIG)
    parser.add_argument(
        "--images",
        type=int,
        nargs=3,
        metavar=("TRAIN", "POOL", "TEST"),
        default=(795, 654, 654),
        help="images of the splits; default NYUv2's",
    )
    parser.add_argument("--tflops", type=float, default=20.0, help="sustained speed of your device, in TFLOP/s")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. base.pretrained=True"
    )


def run(options: argparse.Namespace) -> None:
    """Count and print."""
    path = find_config(options.config)
    if options.tflops <= 0 or min(options.images) < 1:
        raise ValueError(f"--tflops {options.tflops} --images {options.images}: all must be positive.")
    from rich.table import Table

    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.profiling.estimate import forward_cost, image_size, workload
    from symerge_dense.progress import console

    config = load_config(path, options.cfg_options or {})
    cost = forward_cost(config, config.tasks, image_size(config))
    heads = (f"{task} {cost.head_parameters[task]:.2f} M, {gflop:.1f} GFLOP" for task, gflop in cost.heads.items())
    console.print(
        f"{config.name} at {image_size(config)}: backbone {cost.backbone_parameters:.2f} M parameters, "
        f"{cost.backbone:.1f} GFLOP an image; heads {', '.join(heads)}"
    )
    table = Table("stage", "TFLOP", "minutes", title=f"by {options.tflops:g} TFLOP/s; reading of data not counted")
    stages = workload(config, dict(zip(("train", "unlabelled", "test"), options.images, strict=True)))
    for stage, tflop in {**stages, "sum": sum(stages.values())}.items():
        table.add_row(stage, f"{tflop:.0f}", f"{tflop / options.tflops / 60:.1f}")
    console.print(table)
