"""Test a claim of the method: a grid of runs, intervals over seeds, and a verdict by a rule written before the runs."""

from __future__ import annotations

import argparse

from symerge_dense.commands.compare import on_argument
from symerge_dense.pipeline.config_files import CfgOptions, find_study

INTERRUPTED = "finished runs are kept; go on with --resume"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    add = parser.add_argument
    add("name", nargs="?", help="of a study (--list shows them) or its config file; 'all' writes the page of verdicts")
    add("--list", action="store_true", help="show claim, question and cost of every study")
    add("--quick", action="store_true", help="a reduction that ends within minutes; its verdict says little")
    add("--seeds", type=int, help="base, experts and adaptations for each; default: the study's")
    add("--jobs", type=int, default=1, help="processes, each with one thread; results do not depend on it")
    on_argument(parser)
    add("--launcher", choices=("none", "pytorch"), default="none", help="pytorch: torchrun's processes share the runs")
    add("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # of launchers
    add(
        "--work-dir", help="folder of the results, default work_dirs/studies/NAME; with 'all' the folder of all studies"
    )
    add("--cache", help="folder of experts and runs that all studies share, default work_dirs/studies/cache")
    add("--resume", action="store_true", help="go on with a study, or add seeds to it")
    add("--out", default="docs/studies.md", help="of 'all': the page, default docs/studies.md; plots go beside it")
    add("--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. study.seeds=5")


def run(options: argparse.Namespace) -> None:
    """Run a study, list all, or write the page."""
    if options.list:
        from symerge_dense.studies.frame.page import print_list

        print_list()
        return
    if options.name is None:
        raise ValueError("name a study, for example symerge study parts; --list shows them all.")
    if options.name == "all":
        from symerge_dense.studies.frame.page import write_page

        write_page(options.work_dir, options.out)
        return
    find_study(options.name)
    from symerge_dense.commands.cli import end_like_ctrl_c
    from symerge_dense.studies.frame.execution import run_study
    from symerge_dense.studies.frame.plan import load_plan

    end_like_ctrl_c()
    plan = load_plan(options.name, options.quick, options.seeds, options.cfg_options)
    run_study(plan, options.work_dir, options.resume, options.cache, options.jobs, options.on, options.launcher)
