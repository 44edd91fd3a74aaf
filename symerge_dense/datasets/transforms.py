"""Joint geometry of images and targets, and colour jitter of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from symerge_dense.datasets.resize import Window, albumentations_geometry, magnify, masked, resample_nearest
from symerge_dense.registry import TRANSFORMS

Array = NDArray[Any]
BILINEAR = frozenset({"normals"})  # every other target is resampled by nearest


# -- the crop of MTAN (Liu et al. 2019, arXiv 1803.10704) and LibMTL, kept to the letter ------------------------------
class _Named(Protocol):
    @property
    def name(self) -> str: ...


def mtan_crop(
    frame: tuple[int, int], scale: float, down: float, across: float
) -> Callable[[Array, _Named | None], Array]:
    """A function that crops int(H/scale) x int(W/scale) at a chosen place and resizes back.

    Images and normals: bilinear, align_corners=True, nothing renormalised; the rest: nearest, rounding down.

    Args:
        frame: (H, W) of the image.
        scale: zoom factor >= 1.
        down: in [0,1), chooses one of all H-h+1 row offsets.
        across: in [0,1), chooses one of all W-w+1 column offsets.

    Returns:
        A function of an array (H,W[,C]), of any resolution, and its rule (None for the image).
    """
    offsets = [
        int(part * (length - int(length / scale) + 1)) for part, length in zip((down, across), frame, strict=True)
    ]

    def crop(array: Array, rule: _Named | None) -> Array:
        size = array.shape[:2]
        extent = [int(length / scale) for length in size]
        first = [
            min(round(offset * own / full), own - part)
            for offset, own, full, part in zip(offsets, size, frame, extent, strict=True)
        ]
        piece = array[first[0] : first[0] + extent[0], first[1] : first[1] + extent[1]]
        layers = torch.from_numpy(piece.reshape(*extent, -1).astype(np.float32)).permute(2, 0, 1)[None]
        if rule is None or rule.name in BILINEAR:
            resized = F.interpolate(layers, size, mode="bilinear", align_corners=True)
        else:
            resized = F.interpolate(layers, size, mode="nearest")
        return resized[0].permute(1, 2, 0).reshape(array.shape).numpy()

    return crop


# -- one augmentation for images and targets --------------------------------------------------------------------------
MTAN_SCALES = (1.0, 1.2, 1.5)


class TargetRule(Protocol):
    """What a task says about the geometry of its target; it may also have ``renormalize(target)``.

    ``interpolation`` is 'nearest' or 'masked' (mixes valid neighbours only); ``invalid_value`` marks unlabelled pixels.
    """

    @property
    def name(self) -> str:
        """Key in a sample."""

    @property
    def interpolation(self) -> Literal["nearest", "masked"]:
        """How the target may be resampled."""

    @property
    def invalid_value(self) -> float:
        """Marks a pixel without label."""

    def derive(self, target: Array) -> Array:
        """The target, made from another of the data set's; called only for a rule whose ``source`` names that other.

        Args:
            target: the target that ``source`` names.
        """

    def flip(self, target: Array) -> Array:
        """Change the values for a horizontal mirror of the pixels.

        Args:
            target: target with mirrored pixels.
        """

    def zoom(self, target: Array, scale: float) -> Array:
        """Change the values for a zoom of the pixels.

        Args:
            target: target with zoomed pixels.
            scale: zoom factor >= 1.
        """


def renormalize(rule: TargetRule, target: Array) -> Array:
    """Apply a rule's ``renormalize`` to a target that was mixed from neighbours; unchanged where the rule has none.

    Args:
        rule: of the target.
        target: the mixed target.
    """
    hook = getattr(rule, "renormalize", None)
    return target if hook is None else np.asarray(hook(target))


class View(NamedTuple):
    """One random draw of an augmentation.

    Args:
        mirrored: whether the frame is mirrored horizontally.
        scale: zoom factor.
        down: vertical place of the crop, 0 top, 1 bottom.
        across: horizontal place of the crop, 0 left, 1 right.
        brightness: factor of the brightness.
        contrast: factor of the contrast.
        saturation: factor of the saturation.
    """

    mirrored: bool
    scale: float
    down: float
    across: float
    brightness: float
    contrast: float
    saturation: float


@cache
def _pixel_functions() -> ModuleType:
    albumentations_geometry()
    import albumentations.augmentations.pixel.functional as pixel

    return pixel


def jitter(image: Array, brightness: float, contrast: float, saturation: float) -> Array:
    """Image with brightness, contrast (about its mean grey) and saturation multiplied; same dtype.

    Args:
        image: (H,W,3) RGB in 0..255.
        brightness: factor.
        contrast: factor.
        saturation: factor.
    """
    pixel, value = _pixel_functions(), np.ascontiguousarray(image, np.float32) / 255
    value = pixel.adjust_brightness_torchvision(value, brightness).clip(0, 1)
    value = pixel.adjust_contrast_torchvision(value, contrast).clip(0, 1)
    value = pixel.adjust_saturation_torchvision(value, saturation).clip(0, 1) * 255
    return np.asarray(value.round() if image.dtype == np.uint8 else value).astype(image.dtype)


@TRANSFORMS.register_module()
class Augment:
    """Random mirror, zoom and colour, the same for an image and all of its targets.

    Targets may have a lower resolution than the image: crops are fractions of the frame; every array keeps its size.

    Args:
        flip: probability of a horizontal mirror.
        zoom: allowed scales >= 1, drawn uniformly; a window of 1/scale of the frame at a random place is enlarged to
            the full size. None: no zoom.
        color: strength c in [0,1]: brightness, contrast and saturation are each multiplied by a draw from [1-c,1+c].
        protocol: 'default', or 'mtan' for exactly the augmentation of MTAN (Liu et al. 2019, arXiv 1803.10704) and
            LibMTL: scales 1, 1.2, 1.5, integer crops, bilinear normals that mix with invalid pixels and are not
            renormalised. It fixes all settings.

    Raises:
        ValueError: a setting is out of range, or contradicts ``protocol='mtan'``.
    """

    def __init__(
        self,
        flip: float = 0.5,
        zoom: tuple[float, ...] | None = None,
        color: float = 0.0,
        protocol: Literal["default", "mtan"] = "default",
    ) -> None:
        if not all(_is_number(share) and 0 <= share <= 1 for share in (flip, color)):
            raise ValueError(f"flip={flip!r}, color={color!r}: both must be numbers in [0, 1].")
        given = () if zoom is None else zoom
        numbers = isinstance(given, (tuple, list)) and all(map(_is_number, given))
        if zoom is not None and (not numbers or not given or not all(1 <= scale < np.inf for scale in given)):
            raise ValueError(f"zoom={zoom!r}: give one or more scales >= 1, for instance (1.0, 1.2, 1.5), or None.")
        scales = tuple(map(float, given))
        if protocol not in ("default", "mtan"):
            raise ValueError(f"protocol={protocol!r}: must be 'default' or 'mtan'.")
        if protocol == "mtan":
            if flip != 0.5 or scales not in ((), MTAN_SCALES) or color:
                raise ValueError(
                    f"protocol='mtan' means flip=0.5, zoom={MTAN_SCALES}, color=0; got flip={flip}, "
                    f"zoom={zoom}, color={color}. Leave them out or use protocol='default'."
                )
            scales = MTAN_SCALES
        self.flip, self.scales, self.color, self.protocol = flip, scales or (1.0,), color, protocol

    def __call__(
        self, arrays: dict[str, Array], rules: Mapping[str, TargetRule], rng: np.random.Generator
    ) -> dict[str, Array]:
        """``apply`` with a fresh draw from ``rng``."""
        return self.apply(arrays, rules, self.draw(rng))

    def draw(self, rng: np.random.Generator) -> View:
        """Draw a view; always takes the same numbers from ``rng``, whatever the settings.

        Args:
            rng: random generator.
        """
        mirror, down, across, *colors = rng.random(6)
        scale = self.scales[int(rng.integers(len(self.scales)))]
        return View(bool(mirror < self.flip), scale, down, across, *(1 + self.color * (2 * c - 1) for c in colors))

    def apply(self, arrays: dict[str, Array], rules: Mapping[str, TargetRule], view: View) -> dict[str, Array]:
        """Image and targets under a view: new arrays of the same sizes and dtypes.

        Args:
            arrays: ``image`` (H,W,3) and targets (h,w) or (h,w,C), by name.
            rules: tasks by the name of their target.
            view: what to apply.
        """
        frame = arrays["image"].shape[:2]
        return {name: self._one(array, rules.get(name), view, (frame[0], frame[1])) for name, array in arrays.items()}

    def _one(self, array: Array, rule: TargetRule | None, view: View, frame: tuple[int, int]) -> Array:
        zoom = mtan_crop(frame, view.scale, view.down, view.across) if self.protocol == "mtan" else partial(_zoom, view)
        result = zoom(array, rule)
        if rule is not None and view.scale != 1:
            result = rule.zoom(result, view.scale)
        if view.mirrored:
            result = result[:, ::-1].copy()  # `ascontiguousarray` leaves a single column with its negative stride
            result = result if rule is None else rule.flip(result)
        if rule is None and self.color:
            result = jitter(result, view.brightness, view.contrast, view.saturation)
        return result.astype(array.dtype, copy=False)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _zoom(view: View, array: Array, rule: TargetRule | None) -> Array:
    if view.scale == 1:
        return array
    share = 1 / view.scale
    window = Window(view.down * (1 - share), view.across * (1 - share), share)
    if rule is None:
        return magnify(array, window)
    if rule.interpolation == "nearest":
        return resample_nearest(array, array.shape[:2], window)
    return renormalize(rule, masked(array, rule.invalid_value, lambda values: magnify(values, window)))
