"""Masks: things against the structure of a room, and variants of other tasks that ask for one of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.registry import TASKS, did_you_mean
from symerge_dense.tasks.base import MOVES, Array
from symerge_dense.tasks.probability import Probability
from symerge_dense.tasks.surface_classes import Layout, Material, Orientation


@TASKS.register_module()
class Foreground(Probability):
    """1 on things, 0 on walls, floor and ceiling: saliency of what stands or hangs in a room."""

    name: ClassVar[str] = "foreground"
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)
    channels: int = 1


class OneClass(Probability):
    """A variant of a task of classes: 1 on one of them, 0 on the others, -1 where there is no label.

    Args:
        positive_weight: as in ``Probability``.
        names: of the source's classes in label order; None takes those that the variant was made of.

    Attributes:
        wanted: name of the class.
        known: names of the source's classes, in label order.

    Raises:
        ValueError: ``names`` lacks the class.
    """

    wanted: ClassVar[str]
    known: ClassVar[tuple[str, ...]]
    interpolation: ClassVar[Literal["nearest", "masked"]] = "nearest"
    channels: int = 1

    def __init__(self, positive_weight: float = 1.0, names: Sequence[str] | None = None) -> None:
        super().__init__(positive_weight)
        self.names = None if names is None else list(names)
        self._names = list(self.known if names is None else names)
        if self.wanted not in self._names:
            raise ValueError(f"task {self.name!r}: " + did_you_mean(self.wanted, self._names, "class"))

    def derive(self, target: Array) -> Array:
        """The mask float32 (H,W).

        Args:
            target: class numbers (H,W).

        Raises:
            ValueError: a number is none of the classes: the source has others.
        """
        labelled = target != INVALID_LABEL
        if (target[labelled] >= len(self._names)).any():
            raise ValueError(
                f"task {self.name!r} knows {len(self._names)} classes, and {self.source} has class "
                f"{int(target[labelled].max())}; give those of all in label order, names=[...]."
            )
        return np.where(labelled, target == self._names.index(self.wanted), self.invalid_value).astype(np.float32)


def _variants(source: str, known: Sequence[str], left_out: Sequence[str], moves: frozenset[str]) -> None:
    """Register a mask ``<source>_<class>`` for each class of a task, but for some."""
    for wanted in known:
        if wanted in left_out:
            continue
        name = f"{source}_{wanted}".replace(" ", "_")
        about = {
            "__doc__": f"A variant of {source}: 1 on {wanted}, 0 elsewhere.",
            "__module__": __name__,
            "name": name,
            "source": source,
            "wanted": wanted,
            "known": tuple(known),
            "moves": moves,
        }
        title = "".join(word.title() for word in name.split("_"))
        globals()[title] = TASKS.register_module()(type(title, (OneClass,), about))


# a mirror makes left of right, so neither has a mask; no camera looks back to the near wall
_variants("segmentation", NYU13, (), frozenset(MOVES))
_variants("orientation", Orientation.names, ("left", "right"), Orientation.moves)
_variants("material", Material.names, (), Material.moves)
_variants("layout", Layout.names, ("left wall", "right wall", "near wall"), Layout.moves)
