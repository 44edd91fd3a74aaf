"""What runs cost, what differs between them, and where every record comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from symerge_dense.report.differences import differences
from symerge_dense.report.page.grids import Cell, Heading, grid, number_cell, spaced, words
from symerge_dense.report.page.markup import Markup, tag
from symerge_dense.report.page.plots import COLOURS, shares
from symerge_dense.report.records import Found, Runs
from symerge_dense.report.table import UNDEFINED


def costs_part(groups: Sequence[Runs]) -> list[Markup]:
    """Seconds of every stage, memory and weights: means over seeds.

    Args:
        groups: runs.
    """
    stages = list(dict.fromkeys(name for _, runs in groups for run in runs for name in run.content["timings"] or ()))
    heads = [
        Heading("run", number=False),
        Heading("merged model", "million weights", better="down"),
        Heading("experts", "million weights", better="down"),
        Heading("peak memory", unit="MiB", better="down"),
        Heading("total", "seconds", better="down"),
        Heading("shares", "seconds", better="down"),
        *(Heading(spaced(stage), "seconds", better="down") for stage in stages),
    ]
    lines = [_costs(title, runs, stages) for title, runs in groups]
    key = (tag("li", tag("i", class_=f"c{place % COLOURS}"), spaced(stage)) for place, stage in enumerate(stages))
    caption = "Wall clock on the machines named below; experts cost what training or loading them took."
    return [grid(caption, heads, lines), tag("ul", key, class_="key")]


def _costs(title: str, runs: Sequence[Found], stages: Sequence[str]) -> list[Cell]:
    timings = [run.content["timings"] or {} for run in runs]
    seconds = {stage: fmean(one.get(stage, 0.0) for one in timings) for stage in stages}
    peaks = [run.content["peak_memory_mb"] for run in runs if run.content["peak_memory_mb"] is not None]
    total = sum(seconds.values())
    merged, experts = _weights(runs[0].content.get("parameters"))
    return [
        words(title),
        number_cell(merged, 1),
        number_cell(experts, 1),
        number_cell(max(peaks, default=None), 0),
        number_cell(total, 0),
        Cell(shares({spaced(stage): amount for stage, amount in seconds.items()}), total),
        *(number_cell(seconds[stage], 1) for stage in stages),
    ]


def _weights(parameters: Any) -> tuple[float | None, float | None]:
    """Millions of weights of the merged model, and of its experts: each has a backbone of its own."""
    if not isinstance(parameters, Mapping):
        return None, None
    heads = list(parameters["heads"].values())
    return (parameters["backbone"] + sum(heads)) / 1e6, (parameters["backbone"] * len(heads) + sum(heads)) / 1e6


def differences_part(configs: Mapping[str, Any]) -> list[Markup]:
    """The keys in which configs differ.

    Args:
        configs: {title: recorded config}.
    """
    if len(configs) < 2:
        return []
    told = differences(list(configs.values()))
    if not told:
        return [tag("p", "The configs agree in everything but seeds and names.", class_="quiet")]
    heads = [Heading("key", number=False), *(Heading(title, number=False) for title in configs)]
    lines = [[words(key), *(words(value) for value in values)] for key, values in told.items()]
    return [grid("Keys of the configs that differ; seeds and names are left out.", heads, lines)]


def about_part(records: Sequence[tuple[str, Found]]) -> list[Markup]:
    """Where every record lies, and what made it.

    Args:
        records: (title, record).
    """
    names = ("record", "folder", "seed", "device", "commit", "versions", "plug-ins")
    lines = [[words(title), *map(words, _origin(found))] for title, found in records]
    return [grid("Every number of this page is from these.", [Heading(name, number=False) for name in names], lines)]


def _origin(found: Found) -> list[str]:
    content = found.content
    versions = ", ".join(f"{name} {version}" for name, version in (content.get("versions") or {}).items())
    plugins = ", ".join(sorted(set((content.get("plugins") or {}).values())))
    seed = content.get("seed", f"{content.get('seeds', UNDEFINED)} per method")
    device, commit = (str(content.get(key) or UNDEFINED) for key in ("device", "commit"))
    return [str(found.folder), str(seed), device, commit[:12], versions or UNDEFINED, plugins or "none"]
