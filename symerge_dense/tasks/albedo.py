"""Albedo: the colour of surfaces, whatever light falls on them."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.registry import TASKS
from symerge_dense.tasks.intrinsics import Intrinsic


@TASKS.register
class Albedo(Intrinsic):
    """Surface colour, RGB in 0..1."""

    name: ClassVar[str] = "albedo"
    channels: int = 3
