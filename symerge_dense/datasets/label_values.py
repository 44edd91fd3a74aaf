"""From stored numbers to a task's labels: scale, class numbers, pixels without label, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.registry import did_you_mean

Array = NDArray[Any]


@dataclass(frozen=True)
class LabelSpec:
    """Where one target's files are, and what their numbers mean: value = stored * scale + offset.

    Args:
        path: of the label file, under the data set's root; '{}' is the part of the image's path that its wildcards
            matched ('photos/*.jpg' and 'depth/{}.png'), '{split}' the split.
        scale: value of one step; needed where whole numbers stand for a quantity. 1e-3: millimetres for metres.
        offset: value of the stored number 0.
        invalid: stored number that means 'no label', in every channel, or several such numbers. NaN always does.
        key: name of the array in an .npz or HDF5 file, or of the channel in an EXR file; '{}' as in ``path``.
        map: {stored number: class}, for class maps; a class of None means 'no label'. All numbers must be in it.

    Raises:
        ValueError: a value is of the wrong kind.
    """

    path: str
    scale: float | None = None
    offset: float = 0.0
    invalid: float | Sequence[float] | None = None
    key: str | None = None
    map: Mapping[int, int | None] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
            if not (number or (name == "scale" and value is None)) or (name == "scale" and value == 0):
                raise ValueError(f"{name}={value!r}: give a number, such as scale=1e-3 for millimetres.")
        numbers = self.invalid if isinstance(self.invalid, list | tuple) else [self.invalid]
        if not all(number is None or isinstance(number, int | float) for number in numbers):
            raise ValueError(f"invalid={self.invalid!r}: give a stored number, or a list of them.")
        if not isinstance(self.path, str) or not self.path:
            raise ValueError(f"path={self.path!r}: give a pattern such as 'depth/{{}}.png'.")
        if not isinstance(self.key, str | None):
            raise ValueError(f"key={self.key!r}: give the name of an array or channel.")
        if "{}" not in self.path and "{}" not in (self.key or ""):
            raise ValueError(f"path={self.path!r}: put {{}} where the image's name belongs, as in 'depth/{{}}.png'.")
        whole = isinstance(self.map, Mapping) and all(
            isinstance(key, int) and (value is None or isinstance(value, int)) for key, value in self.map.items()
        )
        if self.map is not None and not whole:
            raise ValueError(f"map={self.map!r}: give a dict {{stored number: class}} of whole numbers.")

    @property
    def invalid_numbers(self) -> list[float]:
        """Stored numbers that mean 'no label'."""
        several: Any = self.invalid if isinstance(self.invalid, list | tuple) else [self.invalid]
        return [float(number) for number in several if number is not None]


def label_spec(name: str, spec: Any) -> LabelSpec:
    """A spec from what a config says: a path, or a dict of ``LabelSpec``'s arguments.

    Args:
        name: of the target, for the message.
        spec: the config's value.

    Raises:
        ValueError: an unknown key, or a value of the wrong kind.
    """
    if isinstance(spec, LabelSpec):
        return spec
    values = {"path": spec} if isinstance(spec, str) else spec
    if not isinstance(values, Mapping):
        raise ValueError(f"targets[{name!r}] is {spec!r}; give a path such as '{name}/{{}}.png', or a dict with it.")
    known = [entry.name for entry in fields(LabelSpec)]
    for key in values:
        if key not in known:
            raise ValueError(f"targets[{name!r}]: {did_you_mean(str(key), known, 'key')}")
    if "path" not in values:
        raise ValueError(f"targets[{name!r}] has no path; give one such as '{name}/{{}}.png'.")
    try:
        return LabelSpec(**values)
    except ValueError as error:
        raise ValueError(f"targets[{name!r}]: {error}") from None


def class_numbers(stored: Array, spec: LabelSpec, path: Path) -> Array:
    """Class numbers of a stored map; 255 where there is no label.

    Args:
        stored: as ``read_label`` gives it.
        spec: of the target.
        path: the file, for the message.

    Returns:
        int64 (H,W).

    Raises:
        ValueError: the file holds colours, fractions, or numbers that ``spec.map`` does not have.
    """
    if spec.scale not in (None, 1) or spec.offset:
        raise ValueError(f"{path}: class numbers take no scale or offset; give map={{stored number: class}}.")
    stored = _with_channels(stored, 1, path, "a class map")
    unknown = _unknown(stored, spec)
    values = np.where(unknown, 0, stored)
    if stored.dtype.kind == "f" and (values != np.rint(values)).any():
        raise ValueError(f"{path}: holds {stored.dtype} with fractions; class numbers are whole numbers.")
    numbers = values.astype(np.int64)
    if spec.map is not None:
        table = {int(key): INVALID_LABEL if value is None else int(value) for key, value in spec.map.items()}
        found, places = np.unique(numbers[~unknown], return_inverse=True)
        missing = [number for number in found.tolist() if number not in table]
        if missing:
            raise ValueError(
                f"{path}: holds {', '.join(map(str, missing[:8]))}, which map= does not have; add "
                f"{missing[0]}: <class>, or {missing[0]}: None for no label."
            )
        numbers[~unknown] = np.array([table[number] for number in found.tolist()], np.int64)[places]
    return np.where(unknown, INVALID_LABEL, numbers)


def quantity(stored: Array, spec: LabelSpec, path: Path, rule: Any) -> Array:
    """Values of a stored quantity; the task's ``invalid_value`` where there is no label.

    Args:
        stored: as ``read_label`` gives it.
        spec: of the target.
        path: the file, for the message.
        rule: the task, which says how many channels there are and what is valid.

    Returns:
        float32 (H,W), or (H,W,C) for several channels.

    Raises:
        ValueError: whole numbers without a scale, or another number of channels.
    """
    channels = int(getattr(rule, "channels", 1))
    stored = _with_channels(stored, channels, path, f"the task {rule.name!r}")
    if stored.dtype.kind in "iu" and spec.scale is None:
        raise ValueError(f"{path} is {stored.dtype} with values up to {stored.max()}; {_scale_hint(stored, rule.name)}")
    unknown = _unknown(stored, spec)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = stored.astype(np.float64) * (1 if spec.scale is None else spec.scale) + spec.offset
        values = exact.astype(np.float32)
    unknown |= ~np.isfinite(values).reshape(*values.shape[:2], -1).all(-1)
    values[unknown] = rule.invalid_value
    if hasattr(rule, "valid") and not rule.implausible(values):  # what is implausible is refused, not left out
        layers = torch.from_numpy(np.ascontiguousarray(values.reshape(*values.shape[:2], -1).transpose(2, 0, 1)))
        values[~rule.valid(layers[None])[0].numpy()] = rule.invalid_value
    return values


def _scale_hint(stored: Array, name: str) -> str:
    if name == "depth":
        return "give scale=1e-3 if it is in millimetres, 1/256 if it is KITTI's, or scale=1 for metres."
    top = np.iinfo(stored.dtype).max
    return f"give scale=1/{top} if 0..{top} stands for 0..1, or scale=1 to take the numbers as they are."


def _with_channels(stored: Array, channels: int, path: Path, whose: str) -> Array:
    """(H,W) for one channel, else (H,W,C). Paint programs add an opaque fourth channel, or save grey as three equal."""
    if stored.ndim == 3 and stored.shape[2] == 4 and channels != 4:
        opaque = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1
        stored = stored[..., :3] if (stored[..., 3] == opaque).all() else stored
    if stored.ndim == 3 and channels == 1 and stored.shape[2] in (1, 3) and (stored == stored[..., :1]).all():
        stored = stored[..., 0]
    found = 1 if stored.ndim == 2 else stored.shape[2]
    if found == channels:
        return np.ascontiguousarray(stored)
    if stored.shape[0] == channels:
        raise ValueError(
            f"{path}: has the shape {stored.shape}, but channels come last; save it as (H, W, {channels})."
        )
    remedy = " as a grey or palette PNG" if whose == "a class map" else f" with {channels}"
    remedy += ", or name one by key=" if path.suffix.lower() == ".exr" and channels == 1 else ""
    raise ValueError(f"{path}: has {found} channel{'s' * (found > 1)}, {whose} takes {channels}; save it{remedy}.")


def _unknown(stored: Array, spec: LabelSpec) -> NDArray[np.bool_]:
    layers = stored.reshape(*stored.shape[:2], -1)
    unknown = ~np.isfinite(layers).all(-1)
    for number in spec.invalid_numbers:
        unknown |= (layers == number).all(-1)
    return np.asarray(unknown)
