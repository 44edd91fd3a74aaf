"""Pictures of predictions in the page: a slider between two models, and data URIs, so that the page is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from symerge_dense.datasets.image_files import read_image
from symerge_dense.progress import say
from symerge_dense.report.page.markup import Markup, minus, svg, tag
from symerge_dense.report.records import Found
from symerge_dense.report.results import ROWS

MERGED, EXPERT, TRUTH = "merged", "expert", "truth"
WIDEST = 448  # pixels of a picture in the page
QUALITY = 78
ROOM = 2_200_000  # characters that all pictures of a page may take; a run shows its first images then
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # Runtime: of a link to itself
FEW = 256  # colours of a map of classes, which is kept without loss
TITLES = {MERGED: ROWS["merged"]}


def pictures_part(runs: Sequence[tuple[str, Found]]) -> list[Markup]:
    """Photos with a slider per task between the merged model and another.

    Args:
        runs: (title, run) to show. One without single pictures, as those of earlier versions, says so.
    """
    room = ROOM // max(len(runs), 1)
    return [_run(title if len(runs) > 1 else "", run, place, room) for place, (title, run) in enumerate(runs)]


def _run(title: str, run: Found, place: int, room: int) -> Markup:
    heading = [tag("h3", title)] if title else []
    scenes = _scenes(run, room)
    columns = _columns(scenes)
    others = [name for name in columns if name != MERGED]
    if not others or MERGED not in columns:
        more = f" {run.folder / 'panels.png'} shows them all." if (run.folder / "panels.png").is_file() else ""
        note = f"This run kept no single pictures, so there is nothing to slide.{more}"
        return tag("div", heading, tag("p", note, class_="quiet"))
    return tag(
        "div",
        heading,
        _choice(others, place),
        scenes[0]["names"],
        tag("div", (_scene(number, scene, others) for number, scene in enumerate(scenes, 1)), class_="scenes"),
        class_="pictures",
    )


def _scenes(run: Found, room: int) -> list[dict[str, Any]]:
    """The pictures of a record as data URIs, image by image while there is room; none if one cannot be read."""
    found: list[dict[str, Any]] = []
    try:
        for entry in run.content.get("panels") or ():
            tasks = {
                task: {name: _embedded(run.folder, path) for name, path in columns.items()}
                for task, columns in entry["tasks"].items()
            }
            scene: dict[str, Any] = {"image": _embedded(run.folder, entry["image"]), "tasks": tasks}
            legends = {task: legend for task, legend in entry.get("legends", {}).items() if task in tasks}
            scene |= {"names": _names(legends), "scales": {task: _scale(legend) for task, legend in legends.items()}}
            room -= len(scene["image"]) + sum(len(uri) for columns in tasks.values() for uri in columns.values())
            if found and room < 0:
                break
            found.append(scene)
    except UNREADABLE as error:
        say(f"{run.folder}: its pictures are left out ({type(error).__name__}: {error})", aside=True)
        return []
    return found


def _embedded(folder: Path, path: str) -> str:
    """A picture beside the record as a data URI: WebP, without loss where it has few colours."""
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{path!r} lies outside the folder of the run")
    picture = Image.fromarray(read_image(file))
    few = picture.getcolors(FEW) is not None
    picture.thumbnail((WIDEST, WIDEST), Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", **({"lossless": True} if few else {"quality": QUALITY}))
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _columns(scenes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models that every task of every scene shows; the expert first, then the truth."""
    every = [columns for scene in scenes for columns in scene["tasks"].values()]
    shared = [name for name in next(iter(every), ()) if all(name in columns for columns in every)]
    return sorted(shared, key=lambda name: (EXPERT, TRUTH).index(name) if name in (EXPERT, TRUTH) else 2)


def _choice(others: Sequence[str], place: int) -> Markup:
    """Radio buttons: which model stands left of the line."""
    buttons = (
        tag("label", tag("input", type="radio", name=f"left-{place}", value=name, checked=name == others[0]), name)
        for name in others
    )
    legend = tag("legend", f"Left of the line (right: {TITLES[MERGED]})")
    return tag("fieldset", legend, buttons, class_="choice")


def _scene(number: int, scene: Mapping[str, Any], others: Sequence[str]) -> Markup:
    photo = tag("img", src=scene["image"], alt=f"image {number}", decoding="async")
    figures = (
        _slider(number, task, columns, others, scene["scales"].get(task)) for task, columns in scene["tasks"].items()
    )
    return tag(
        "div",
        tag("figure", tag("div", photo, class_="stage photo"), tag("figcaption", f"image {number}")),
        figures,
        class_="scene",
    )


def _names(legends: Mapping[str, Any]) -> Markup | None:
    """The colours that have names, such as those of classes."""
    named = {task: legend for task, legend in legends.items() if legend["names"]}
    lists = (
        tag("li", tag("b", task), (_swatch(name, color) for name, color in zip(of["names"], of["colors"], strict=True)))
        for task, of in named.items()
    )
    return tag("details", tag("summary", "Colours"), tag("ul", lists, class_="colours")) if named else None


def _swatch(name: str, color: Sequence[int]) -> Markup:
    return tag("span", svg(tag("rect", width=10, height=10, fill=_hex(color)), width=10, height=10), name)


def _hex(color: Sequence[int]) -> str:
    red, green, blue = (min(255, max(0, int(part))) for part in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _scale(legend: Mapping[str, Any]) -> Markup | None:
    """A scale of colours between its ends; nothing for colours with names."""
    if legend["names"] or legend["low"] is None or legend["high"] is None:
        return None
    low, high = (minus(f"{float(legend[end]):.3g}") for end in ("low", "high"))
    bars = (tag("rect", x=x, width=1.02, height=1, fill=_hex(color)) for x, color in enumerate(legend["colors"]))
    drawing = svg(bars, viewBox=f"0 0 {len(legend['colors'])} 1", preserveAspectRatio="none")
    return tag("span", low, drawing, f"{high} {legend['unit']}".rstrip(), class_="scale")


def _slider(number: int, task: str, columns: Mapping[str, str], others: Sequence[str], scale: Markup | None) -> Markup:
    """The merged model's picture under the other models', of which one is shown left of a line that can be moved."""
    over = (
        tag("img", src=columns[name], alt="", data_model=name, class_="over", hidden=name != others[0])
        for name in others
    )
    label = f"{task} of image {number}: place of the line, {others[0]} at its left, {TITLES[MERGED]} at its right"
    handle = tag("input", type="range", min=0, max=100, value=50, step=1, aria_label=label)
    under = tag("img", src=columns[MERGED], alt=f"{task} of image {number}, {TITLES[MERGED]}")
    sides = tag("span", tag("span", others[0], class_="left"), f" │ {TITLES[MERGED]}", class_="quiet")
    stage = tag("div", under, over, tag("span", class_="line", aria_hidden="true"), handle, class_="stage slider")
    return tag("figure", stage, tag("figcaption", task, scale, sides))
