"""Drawings of the page as SVG: curves, a map of coefficients, dots and bars beside numbers. Colours are the style's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any

from symerge_dense.report.figures.curves import series, smoothed
from symerge_dense.report.page.markup import Markup, joined, minus, percent, svg, tag

POINTS = 240  # of a curve
COLOURS = 10  # classes c0, c1, ... of the style
LETTER = 0.0125  # width of a letter beside the map at its narrowest


# -- curves -----------------------------------------------------------------------------------------------------------
Histories = Sequence[Sequence[Mapping[str, Any]]]


def curves(title: str, histories: Histories, keys: Mapping[str, str]) -> Markup | None:
    """Lines of several quantities over the iterations, one per run and quantity, on an axis that has zero.

    Args:
        title: what they are.
        histories: rows of history.jsonl of each run.
        keys: {name: its key in the rows}.

    Returns:
        The figure; None if no run has such a quantity.
    """
    lines = [
        (place, name, steps, smoothed(values) if len(values) > 2 else values)
        for place, (name, key) in enumerate(keys.items())
        for steps, values in (series(history, key) for history in histories)
        if len(steps)
    ]
    if not lines:
        return None
    right = max(float(steps[-1]) for *_, steps, _ in lines) or 1.0
    low = min(0.0, *(float(values.min()) for *_, values in lines))
    high = max(float(values.max()) for *_, values in lines)
    high = high if high > low else low + 1.0
    paths = [_path(place, steps / right, (values - low) / (high - low)) for place, _, steps, values in lines]
    ends = {name: [float(values[-1]) for _, other, _, values in lines if other == name] for name in keys}
    return tag(
        "figure",
        tag("figcaption", title),
        tag(
            "div",
            tag("span", _short(high), class_="high"),
            tag("span", _short(low), class_="low"),
            svg(_rules(), paths, viewBox="0 0 100 100", preserveAspectRatio="none", label=f"{title} by iteration"),
            class_="plot",
        ),
        tag("div", tag("span", "0"), tag("span", "iteration"), tag("span", f"{right:.0f}"), class_="axis"),
        _key(ends),
        class_="curve",
    )


def _rules() -> Markup:
    return joined(tag("line", x1=0, x2=100, y1=y, y2=y, class_="rule") for y in (0, 25, 50, 75, 100))


def _path(place: int, x: Any, y: Any) -> Markup:
    every = max(1, math.ceil(len(x) / POINTS))
    chosen = [*range(0, len(x), every)]
    chosen += [len(x) - 1] if chosen[-1] != len(x) - 1 else []
    points = " ".join(f"{100 * x[i]:.2f},{100 - 100 * y[i]:.2f}" for i in chosen)
    return tag("polyline", points=points, class_=f"c{place % COLOURS}")


def _key(ends: Mapping[str, Sequence[float]]) -> Markup:
    """The colours' names, with the mean of the last values."""
    entries = (
        tag(
            "li", tag("i", class_=f"c{place % COLOURS}"), name, tag("span", f" {_short(fmean(values))}", class_="quiet")
        )
        for place, (name, values) in enumerate(ends.items())
        if values
    )
    return tag("ul", entries, class_="key")


def _short(value: float) -> str:
    return minus(f"{value:.3g}")


# -- the coefficients -------------------------------------------------------------------------------------------------
def heat_map(coefficients: Mapping[str, Sequence[float | None]], labels: Sequence[str], tasks: Sequence[str]) -> Markup:
    """Layers from left (first) to right (last), a line per task; the page's script shows the values under the pointer.

    Args:
        coefficients: {group of tensors: one value per task}, in depth order.
        labels: short names of the groups.
        tasks: names of the lines.
    """
    values = [value for row in coefficients.values() for value in row if value is not None]
    low, high = min([0.0, *values]), max([1.0, *values])
    cells = joined(
        tag(
            "rect",
            x=x,
            y=y,
            width=1,
            height=1,
            fill=colour((value - low) / (high - low)) if value is not None else "none",
        )
        for x, row in enumerate(coefficients.values())
        for y, value in enumerate(row)
    )
    marker = tag("rect", x=0, y=0, width=1, height=len(tasks), class_="marker", visibility="hidden")
    view = f"0 0 {len(labels)} {len(tasks)}"
    drawing = svg(cells, marker, viewBox=view, preserveAspectRatio="none", class_=f"cells lines-{min(len(tasks), 12)}")
    names = tag("div", (tag("span", task) for task in tasks), class_="names")
    focus = tag(
        "div",
        drawing,
        _blocks(labels),
        class_="map",
        tabindex="0",
        role="group",
        aria_label="Merging coefficients by layer. The arrow keys go from layer to layer; values are read out below.",
    )
    scale = tag("div", tag("span", _short(low)), _scale(), tag("span", _short(high)), class_="scale")
    hint = "Point at a layer, or focus the map and use the arrow keys."
    return tag(
        "div",
        tag("div", tag("div", names, focus, class_="heat"), class_="scroll"),
        tag("div", tag("output", hint, class_="readout"), scale, class_="below"),
        class_="heatmap",
    )


def _scale() -> Markup:
    steps = 32
    bars = joined(tag("rect", x=x, y=0, width=1.02, height=1, fill=colour(x / (steps - 1))) for x in range(steps))
    return svg(bars, viewBox=f"0 0 {steps} 1", preserveAspectRatio="none")


def _blocks(labels: Sequence[str]) -> Markup:
    """The names of the layers' blocks where they begin; of two that would overlap, the longer block has its own."""
    starts = [place for place, label in enumerate(labels) if not place or _block(labels[place - 1]) != _block(label)]
    sizes = {start: end - start for start, end in zip(starts, [*starts[1:], len(labels)], strict=True)}
    taken: list[tuple[float, float]] = []
    drawn = []
    for start in sorted(sizes, key=lambda start: -sizes[start]):
        name, left = _block(labels[start]), start / len(labels)
        right = left + LETTER * (len(name) + 1)
        drawn.append(tag("line", x1=percent(left), x2=percent(left), y1=0, y2=5))
        if all(right <= other or left >= end for other, end in taken):
            taken.append((left, right))
            drawn.append(tag("text", name, x=percent(left), y=16))
    return svg(drawn, class_="blocks")


def _block(label: str) -> str:
    """'layer1' of 'layer1.0.conv1', 'blocks.0' of 'blocks.0.attn.qkv'."""
    first, *rest = label.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() and not first[-1:].isdigit() else first


@cache
def _colours() -> list[str]:
    from matplotlib import colormaps  # slow to import

    return [
        "#" + "".join(f"{round(255 * part):02x}" for part in colormaps["viridis"](index)[:3]) for index in range(256)
    ]


def colour(share: float) -> str:
    """A colour of the scale.

    Args:
        share: 0 low, 1 high.
    """
    return _colours()[min(255, max(0, int(share * 256)))]


# -- beside numbers ---------------------------------------------------------------------------------------------------
def dots(places: Mapping[str, float | None]) -> Markup:
    """Values on a line from 0 to 1: the expert hollow, the merged model filled, others as small strokes.

    Args:
        places: {class of the style: place}.
    """
    known = {name: min(max(value, 0.0), 1.0) for name, value in places.items() if value is not None}
    ends = [known[name] for name in ("expert", "merged") if name in known]
    drawn = [tag("line", x1="0%", x2="100%", y1=9, y2=9, class_="rule")]
    if len(ends) == 2:
        drawn.append(tag("line", x1=percent(ends[0]), x2=percent(ends[1]), y1=9, y2=9, class_="link"))
    for name, place in known.items():
        if name in ("expert", "merged"):
            drawn.append(tag("circle", cx=percent(place), cy=9, r=4, class_=name))
        else:
            drawn.append(tag("line", x1=percent(place), x2=percent(place), y1=5, y2=13, class_="other"))
    return svg(drawn, class_="dots")


def bar(value: float, low: float, high: float, std: float | None, style: str) -> Markup:
    """A bar from zero to a value on an axis from ``low`` to ``high``, with its standard deviation as a whisker.

    Args:
        value: of the bar; one beyond the axis is cut there, with an arrow.
        low: left end of the axis, at most 0.
        high: right end of the axis, at least 0.
        std: None: no whisker.
        style: class of the style.
    """
    at = {name: (min(max(v, low), high) - low) / (high - low) for name, v in (("zero", 0.0), ("value", value))}
    left, right = sorted(at.values())
    drawn = [tag("rect", x=percent(left), y=3, width=percent(right - left), height=12, class_=style)]
    drawn.append(tag("line", x1=percent(at["zero"]), x2=percent(at["zero"]), y1=0, y2=18, class_="zero"))
    if std is not None and low <= value <= high:
        ends = [(min(max(value + sign * std, low), high) - low) / (high - low) for sign in (-1, 1)]
        drawn.append(tag("line", x1=percent(ends[0]), x2=percent(ends[1]), y1=9, y2=9, class_="whisker"))
    if not low <= value <= high:
        drawn.append(tag("text", "◂" if value < low else "▸", x=percent(at["value"]), y=13, class_="cut"))
    return svg(drawn, class_="bar")


def shares(parts: Mapping[str, float]) -> Markup:
    """One bar of parts, each as wide as its share.

    Args:
        parts: {name: amount}.
    """
    total, start, drawn = sum(parts.values()) or 1.0, 0.0, []
    for place, (name, amount) in enumerate(parts.items()):
        label = tag("title", f"{name} {amount:.1f} s")
        ends = {"x": percent(start), "width": percent(amount / total)}
        drawn.append(tag("rect", label, **ends, y=3, height=12, class_=f"c{place % COLOURS}"))
        start += amount / total
    return svg(drawn, class_="bar")
