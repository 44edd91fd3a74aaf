"""What all pictures of the report share: figures, colours and how they are saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from symerge_dense.fileio import atomic_write

DPI = 150
INK = "#22272e"
MUTED = "#8a929c"
ACCENT = "#d1495b"
COLOURS = ("#2a6f97", "#d1495b", "#3a7d44", "#e09f3e", "#6a4c93", "#00897b", "#8d5a3a", "#5c6b73", "#c2185b", "#7cb518")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure that needs no screen.

    Args:
        width: inches.
        height: inches.
        layout: None: axes are placed by hand.
    """
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG of 150 dots per inch, whole or not at all. The same figure gives the same bytes.

    Args:
        figure: to write.
        path: the file.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour per name, by its position, so that a task has the same colour in every picture of a run.

    Args:
        names: in the order of the run's tasks.
    """
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
