"""The page as a whole: one file that asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from symerge_dense.fileio import write_text
from symerge_dense.report.differences import names
from symerge_dense.report.page.facts import about_part, costs_part, differences_part
from symerge_dense.report.page.learned import classes_part, coefficients_part, curves_part
from symerge_dense.report.page.markup import Markup, tag
from symerge_dense.report.page.pictures import pictures_part
from symerge_dense.report.page.ranking import comparison_part
from symerge_dense.report.page.results import agreement_part, groups_of, results_part
from symerge_dense.report.records import Found, Records

SHOWN = 4  # groups whose pictures are in the page; more would make it too large to send
Part = tuple[str, str, list[Markup]]
"""Anchor, heading and content of a section."""


def write_page(path: str | Path, records: Records, title: str | None = None) -> None:
    """Write the report as one HTML file, whole or not at all.

    Args:
        path: the file.
        records: what it shows.
        title: of the page; None names the runs.

    Raises:
        ValueError: the metrics of runs of one configuration differ.
    """
    write_text(path, page(records, title))


def page(records: Records, title: str | None = None) -> str:
    """The HTML. What comes from the records is escaped, and no script runs but the page's own.

    Args:
        records: what it shows.
        title: of the page; None names the runs.

    Raises:
        ValueError: the metrics of runs of one configuration differ.
    """
    every = [*records.runs, *records.unlabelled, *records.comparisons]
    given = list(dict.fromkeys(str((found.content["config"] or {}).get("name", "run")) for found in every))
    title = title or f"SyMerge: {', '.join(given)}"
    parts = [part for part in _parts(records) if part[2]]
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    ]
    links = (tag("li", tag("a", text, href=f"#{name}")) for name, text, _ in parts)
    header = tag(
        "header",
        tag("h1", title),
        tag("p", _counts(records), class_="quiet"),
        tag("nav", tag("ul", links), aria_label="Sections"),
    )
    sections = (tag("section", tag("h2", text), content, id=name, aria_label=text) for name, text, content in parts)
    body = tag("body", header, tag("main", sections), tag("script", Markup(script)))
    return f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _counts(records: Records) -> str:
    kinds = {
        ("run", "runs"): records.runs,
        ("run without labels", "runs without labels"): records.unlabelled,
        ("comparison", "comparisons"): records.comparisons,
    }
    return ", ".join(f"{len(found)} {kind[len(found) > 1]}" for kind, found in kinds.items() if found)


def _parts(records: Records) -> Sequence[Part]:
    groups = groups_of(records.runs)
    titled = [(one.title, one.runs) for one in groups]
    titled += [(name, [run]) for name, run in zip(_names(records.unlabelled), records.unlabelled, strict=True)]
    compared = list(zip(_names(records.comparisons), records.comparisons, strict=True))
    firsts = [(title, runs[0]) for title, runs in titled]
    configs = {title: found.content["config"] for title, found in [*firsts, *compared]}
    every = [*((title, run) for title, runs in titled for run in runs), *compared]
    return [
        ("results", "Results", results_part(groups) if groups else []),
        ("agreement", "Without labels: agreement with the experts", agreement_part(records.unlabelled)),
        ("comparison", "Methods compared", comparison_part(compared)),
        ("pictures", "Predictions", pictures_part(firsts[:SHOWN])),
        ("classes", "Classes", classes_part({one.title: one.mean for one in groups})),
        ("coefficients", "Merging coefficients", coefficients_part(titled)),
        ("curves", "Curves of the adaptation", curves_part(titled)),
        ("costs", "Costs", costs_part(titled) if titled else []),
        ("differences", "What differs", differences_part(configs)),
        ("about", "Records", about_part(every)),
    ]


def _names(found: Sequence[Found]) -> list[str]:
    return names([one.content["config"] for one in found])
