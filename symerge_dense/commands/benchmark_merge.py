"""Time and memory of merging large random checkpoints, against a plain pass over the same bytes."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    parser.add_argument("--dir", type=Path, required=True, help="a new folder, or one of a run with --keep")
    parser.add_argument("--gigabytes", type=float, default=1.2, help="of one checkpoint, float32")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of every contender, in turn; the fastest counts")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints for another run")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.gigabytes <= 0 or min(options.experts, options.threads, options.rounds) < 1:
        raise ValueError("--gigabytes, --experts, --threads and --rounds must be positive.")
    if options.dir.exists() and not (options.dir / "base.safetensors").exists():
        raise ValueError(f"{options.dir} exists and is no folder of a former run; choose another one.")
    from rich.table import Table

    from symerge_dense.pipeline.profiling.file_merge import PLAIN, Cost, generate, measure_merge, remove
    from symerge_dense.progress import console

    generate(options.dir, options.gigabytes, options.experts)
    contenders = [PLAIN, *options.methods]
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for name in contenders * options.rounds:
        costs[name].append(measure_merge(options.dir, name, options.threads))
    table = Table("contender", "seconds", "/ plain pass", "peak RssAnon, MB", title=f"{options.experts} experts")
    plain = min(cost.seconds for cost in costs[PLAIN])
    for name, runs in costs.items():
        fastest = min(cost.seconds for cost in runs)
        table.add_row(name, f"{fastest:.2f}", f"{fastest / plain:.2f}", f"{max(cost.peak for cost in runs) / 1e6:.0f}")
    console.print(table)
    if not options.keep:
        remove(options.dir)
