"""The published packagings of NYUv2 by name, and the settings of each."""

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
FRAME_SIZE = (288, 384)  # default size of whole frames: MTAN's
OPTIONS = ("crop", "normals", "normal_axes")  # each is an option of some of the packagings
NATIVE: Literal["native"] = "native"
Settings = dict[str, Any]


def packaging_class(packaging: str) -> type[Split]:
    """The data set class of a packaging.

    Args:
        packaging: its name.

    Raises:
        ValueError: the name is unknown.
    """
    if packaging not in PACKAGINGS:
        raise ValueError(did_you_mean(packaging, PACKAGINGS, "packaging"))
    return PACKAGINGS[packaging]


def settings_of(
    packaging: str, classes: int = 13, size: tuple[int, int] | Literal["native"] | None = None, **options: str | None
) -> Settings:
    """All settings of a conversion, with the defaults filled in.

    Args:
        packaging: its name.
        classes: number of classes of the labels, 13 or 40.
        size: (H, W), or 'native' for the size as stored. None is the default: as stored if the packaging is already
            resized, else 288 x 384.
        **options: ``crop``, ``normals``, ``normal_axes``; None: the packaging's default.

    Returns:
        ``classes``, ``size`` ([H, W]; None: as stored) and the packaging's options.

    Raises:
        ValueError: the packaging is unknown or does not have an option.
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
    """Arguments of a class's constructor and of those of its base classes."""
    constructors = [vars(base)["__init__"] for base in reversed(cls.__mro__) if "__init__" in vars(base)]
    return {
        name: parameter
        for constructor in constructors[1:]  # object's comes first
        for name, parameter in inspect.signature(constructor).parameters.items()
    }


def open_split(packaging: str, root: str | Path, split: str, settings: Mapping[str, Any]) -> Split:
    """Open one split of a packaging as a data set with segmentation, depth and normals.

    Args:
        packaging: its name.
        root: file or folder of the packaging.
        split: 'train' or 'val'.
        settings: as ``settings_of`` returns them.

    Raises:
        ValueError: the packaging is unknown, or its class refuses the source (missing, broken) or a setting.
    """
    arguments: dict[str, Any] = {"root": root, "split": split, **settings}
    classes = arguments.pop("classes")
    arguments["size"] = None if settings["size"] is None else tuple(settings["size"])
    tasks = {"segmentation": Segmentation(classes), "depth": Depth(), "normals": Normals()}
    return packaging_class(packaging)(tasks=tasks, **arguments)
