"""Tables and a page of finished runs and comparisons: means over seeds, Delta_m, and a paper's numbers beside them."""

from __future__ import annotations

import argparse
import sys

from symerge_dense.report.paper_numbers import PUBLISHED

RESULTS = "results.json or compare.json files, or their folders; seeds of one config are pooled"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes to ``parser``."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="tables in Markdown")
    table.set_defaults(make=_table)
    table.add_argument("results", nargs="+", help=RESULTS)
    table.add_argument("--paper", help=f"stand beside a paper's numbers: {', '.join(PUBLISHED)}")
    table.add_argument("--out", help="write the Markdown there instead of printing it")
    page = commands.add_parser("page", help="one HTML file with tables, pictures and plots, which needs no network")
    page.set_defaults(make=_page)
    page.add_argument("results", nargs="+", help=RESULTS)
    page.add_argument("--out", default="report.html", help="the file, default report.html")
    page.add_argument("--title", help="of the page; default: the names of the configs")


def run(options: argparse.Namespace) -> None:
    """Print or write the report."""
    options.make(options)


def _table(options: argparse.Namespace) -> None:
    from symerge_dense.fileio import write_text
    from symerge_dense.registry import did_you_mean
    from symerge_dense.report.agreement import markdown_agreement
    from symerge_dense.report.comparison_files import markdown_comparison
    from symerge_dense.report.paper_tables import beside_paper, of_comparison, of_runs
    from symerge_dense.report.records import read_records
    from symerge_dense.report.run_tables import seeds_table
    from symerge_dense.report.seeds import group

    paper = PUBLISHED.get(options.paper)
    if options.paper and paper is None:
        raise ValueError(did_you_mean(options.paper, PUBLISHED, "table of a paper"))
    runs, unlabelled, comparisons = read_records(options.results)
    if paper and unlabelled:
        raise ValueError(
            f"{unlabelled[0].folder} was measured without labels, and a paper's numbers are on labels; leave it or "
            "--paper out."
        )
    parts = []
    for title, members in group([run.content for run in runs]).items():
        parts += [beside_paper(of_runs(title, members), paper)] if paper else []
        parts.append(seeds_table(title, members))
    parts += [markdown_agreement(run.content) for run in unlabelled]
    for _, record in comparisons:
        parts += [beside_paper(of_comparison(record), paper)] if paper else []
        parts.append(f"# {record['config'].get('name', 'run')}, compared\n\n{markdown_comparison(record)}")
    text = "\n".join(parts)
    if options.out:
        write_text(options.out, text)
    else:
        sys.stdout.write(text)


def _page(options: argparse.Namespace) -> None:
    from pathlib import Path

    from symerge_dense.progress import say
    from symerge_dense.report.page.document import write_page
    from symerge_dense.report.records import read_records

    if Path(options.out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {options.out} is no page; give it a name that ends in .html.")
    write_page(options.out, read_records(options.results), options.title)
    say(f"{options.out}: {Path(options.out).stat().st_size / 1e6:.1f} MB; open it in a browser")
