"""The packagings that NYUv2 is published in, by name, and which settings each of them has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from symerge_dense.datasets.nyuv2.frames import NYUFrames
from symerge_dense.datasets.nyuv2.listed import NYUDMT, NYUDv2
from symerge_dense.datasets.nyuv2.mat import NYUv2Mat
from symerge_dense.datasets.nyuv2.parquet import NYUv2Parquet
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

Split = NYUFrames | NYUv2Parquet
PACKAGINGS: dict[str, type[Split]] = {cls.packaging: cls for cls in (NYUv2Mat, NYUv2Parquet, NYUDMT, NYUDv2)}
FRAME_SIZE = (288, 384)  # what whole frames become unless told otherwise: MTAN's size
OPTIONS = ("crop", "normals", "normal_axes")  # that some of the classes have
NATIVE: Literal["native"] = "native"
Settings = dict[str, Any]


def packaging_class(packaging: str) -> type[Split]:
    """The data set class of a packaging. Raises ValueError for an unknown name."""
    if packaging not in PACKAGINGS:
        raise ValueError(did_you_mean(packaging, PACKAGINGS, "packaging"))
    return PACKAGINGS[packaging]


def settings_of(
    packaging: str, classes: int = 13, size: tuple[int, int] | Literal["native"] | None = None, **options: str | None
) -> Settings:
    """All settings of a conversion: classes, size ([H, W], None as stored), and the packaging's own options.

    Args:
        size: None for the default: as stored where the packaging is already resized, else 288 x 384.
        options: ``crop``, ``normals``, ``normal_axes``; None for the packaging's default.

    Raises ValueError for an option that the packaging does not have.
    """
    cls = packaging_class(packaging)
    own = {name: parameter for name, parameter in _parameters(cls).items() if name in OPTIONS}
    given = {name: value for name, value in options.items() if value is not None}
    unknown = [name for name in given if name not in own]
    if unknown:
        raise ValueError(f"packaging {packaging!r} has no option {', '.join(map(repr, unknown))}; leave it out.")
    if size is None:
        size = FRAME_SIZE if issubclass(cls, NYUFrames) else NATIVE
    defaults = {name: parameter.default for name, parameter in own.items()}
    return {"classes": classes, "size": None if size == NATIVE else list(size), **defaults, **given}


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class's constructor, with those of the constructors that it hands others on to."""
    constructors = [vars(base)["__init__"] for base in reversed(cls.__mro__) if "__init__" in vars(base)]
    return {
        name: parameter
        for constructor in constructors[1:]  # object's comes first
        for name, parameter in inspect.signature(constructor).parameters.items()
    }


def open_split(packaging: str, root: str | Path, split: str, settings: Mapping[str, Any]) -> Split:
    """One split of a packaging, with segmentation, depth and normals, under ``settings`` of ``settings_of``.

    Raises ValueError for what the packaging's class refuses: a missing or broken source, a value it does not know.
    """
    arguments: dict[str, Any] = {"root": root, "split": split, **settings}
    classes = arguments.pop("classes")
    arguments["size"] = None if settings["size"] is None else tuple(settings["size"])
    tasks = {"segmentation": Segmentation(classes), "depth": Depth(), "normals": Normals()}
    return packaging_class(packaging)(tasks=tasks, **arguments)
