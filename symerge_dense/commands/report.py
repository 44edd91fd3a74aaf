"""Tables of finished runs: means over seeds, Delta_m by every definition, and beside the numbers of a paper."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.report.paper_numbers import PUBLISHED


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    table = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("table", help="a table in Markdown")
    table.add_argument("results", nargs="+", help="results.json files or their folders; seeds of one config are pooled")
    table.add_argument("--paper", help=f"stand beside a paper's numbers: {', '.join(PUBLISHED)}")
    table.add_argument("--out", help="write the Markdown there instead of printing it")


def run(options: argparse.Namespace) -> None:
    """Print or write the tables."""
    from symerge_dense.fileio import write_text
    from symerge_dense.registry import did_you_mean
    from symerge_dense.report.run_tables import comparison, seeds_table
    from symerge_dense.report.seeds import group, read_runs

    if options.paper and options.paper not in PUBLISHED:
        raise ValueError(did_you_mean(options.paper, PUBLISHED, "table of a paper"))
    parts = []
    for title, runs in group(read_runs(options.results)).items():
        if options.paper:
            parts.append(comparison(title, runs, PUBLISHED[options.paper]))
        parts.append(seeds_table(title, runs))
    text = "\n".join(parts)
    if options.out:
        write_text(options.out, text)
    else:
        sys.stdout.write(text)
