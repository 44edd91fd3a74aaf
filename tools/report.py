#!/usr/bin/env python3
"""Tables of finished runs: means over seeds, Delta_m by every definition, and beside the numbers of a paper."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from symerge_dense.fileio import atomic_write
from symerge_dense.pipeline.cli import run_tool
from symerge_dense.registry import did_you_mean
from symerge_dense.report.paper_numbers import PUBLISHED
from symerge_dense.report.run_tables import comparison, seeds_table
from symerge_dense.report.seeds import group, read_runs


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    table = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("table", help="a table in Markdown")
    table.add_argument("results", nargs="+", help="results.json files or their folders; seeds of one config are pooled")
    table.add_argument("--paper", help=f"stand beside a paper's numbers: {', '.join(PUBLISHED)}")
    table.add_argument("--out", help="write the Markdown there instead of printing it")
    options = parser.parse_args()
    if options.paper and options.paper not in PUBLISHED:
        raise ValueError(did_you_mean(options.paper, PUBLISHED, "table of a paper"))
    parts = []
    for title, runs in group(read_runs(options.results)).items():
        if options.paper:
            parts.append(comparison(title, runs, PUBLISHED[options.paper]))
        parts.append(seeds_table(title, runs))
    text = "\n".join(parts)
    if options.out:
        with atomic_write(Path(options.out)) as temporary:
            temporary.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    sys.exit(run_tool(main))
