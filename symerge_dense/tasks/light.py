"""Where light comes from and where it is missing, as seen from each surface."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import MOVES
from symerge_dense.tasks.intrinsic import Intrinsic
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.probability import Probability


@TASKS.register_module()
class LightVisibility(Probability):
    """1 where the lamp shines on a surface: it faces the lamp, and nothing is in between."""

    name: ClassVar[str] = "light_visibility"
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)
    channels: int = 1


@TASKS.register_module()
class CastShadow(Probability):
    """1 where a surface faces the lamp and something in between keeps its light off."""

    name: ClassVar[str] = "cast_shadow"
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)
    channels: int = 1


@TASKS.register_module()
class AmbientOcclusion(Intrinsic):
    """Share of the ambient light that reaches a surface, 0..1: less near corners."""

    name: ClassVar[str] = "ambient_occlusion"
    channels: int = 1


@TASKS.register_module()
class LightDirection(Normals):
    """Unit vector from a surface to the lamp, with the channels, loss and metrics of ``Normals``."""

    name: ClassVar[str] = "light_direction"
