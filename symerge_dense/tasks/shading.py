"""Shading: the light that falls on surfaces, whatever their colour."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.registry import TASKS
from symerge_dense.tasks.intrinsics import Intrinsic


@TASKS.register
class Shading(Intrinsic):
    """Light level, one channel in 0..1."""

    name: ClassVar[str] = "shading"
    channels: int = 1
