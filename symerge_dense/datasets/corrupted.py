"""Images of another data set, corrupted as a camera or a file might: noise, blur, contrast, brightness, JPEG, pixels.

The strengths are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261) for images of 224 pixels;
blur is scaled with the image's height, so that at 64 pixels the weakest is next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from symerge_dense.datasets.base import Array, DenseDataset
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.registry import DATASETS, did_you_mean

HEIGHT = 224  # of the images that the strengths were chosen for


@DATASETS.register_module()
class Corrupted(DenseDataset):
    """A data set whose images are corrupted and whose targets are not. A seed and an index fix every pixel.

    Args:
        dataset: spec of the data set, ``dict(type=...)``.
        corruption: a name of ``CORRUPTIONS``.
        severity: 1 (weak) to 5 (strong).
        tasks: as in ``DenseDataset``.
        augment: as in ``DenseDataset``.
        seed: of noise and augmentation.

    Raises:
        ValueError: an unknown corruption, or a severity outside 1 to 5.
    """

    def __init__(
        self,
        dataset: Mapping[str, Any],
        corruption: str,
        severity: int = 3,
        tasks: Mapping[str, TargetRule | dict[str, Any]] | None = None,
        augment: Augment | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if corruption not in CORRUPTIONS:
            raise ValueError(did_you_mean(corruption, CORRUPTIONS, "corruption"))
        if severity not in range(1, 6):
            raise ValueError(f"severity={severity!r}: give a whole number from 1 (weak) to 5 (strong).")
        self.clean: DenseDataset = DATASETS.build(dict(dataset), tasks=dict(tasks or {}))
        self.corruption, self.severity = corruption, severity
        self.serves = self.clean.serves  # type: ignore[misc]  # those of the clean one
        self.classes = self.clean.classes
        super().__init__(tasks, augment, self.clean.size, seed)

    def __len__(self) -> int:
        return len(self.clean)

    def image(self, index: int) -> Array:
        change, strengths = CORRUPTIONS[self.corruption]
        rng = np.random.default_rng((self.seed, index))
        image = np.asarray(self.clean.image(index), np.float32)
        changed = change(image, strengths[self.severity - 1], rng)
        return np.clip(np.round(changed), 0, 255).astype(np.uint8)

    def target(self, index: int, name: str) -> Array:
        return self.clean.target(index, name)

    def image_name(self, index: int) -> str:
        return self.clean.image_name(index)

    def target_name(self, index: int, name: str) -> str:
        return self.clean.target_name(index, name)

    def image_size(self, index: int) -> tuple[int, int]:
        return self.clean.image_size(index)


def _nothing(image: Array, strength: float, rng: Generator) -> Array:
    return image


def _noise(image: Array, strength: float, rng: Generator) -> Array:
    return image + rng.normal(0, 255 * strength, image.shape)


def _blur(image: Array, strength: float, rng: Generator) -> Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), strength * image.shape[0] / HEIGHT))


def _contrast(image: Array, strength: float, rng: Generator) -> Array:
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * strength + mean


def _brightness(image: Array, strength: float, rng: Generator) -> Array:
    """Value of HSV raised by a share of its range."""
    value = image.max(-1, keepdims=True)
    raised = np.minimum(value + 255 * strength, 255)
    return np.where(value > 0, image * raised / np.maximum(value, 1e-6), raised)


def _jpeg(image: Array, strength: float, rng: Generator) -> Array:
    whole = cv2.cvtColor(np.round(image).astype(np.uint8), cv2.COLOR_RGB2BGR)
    packed = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])[1]
    return cv2.cvtColor(cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(np.float32)


def _pixelate(image: Array, strength: float, rng: Generator) -> Array:
    height, width = image.shape[:2]
    size = max(1, round(width * strength)), max(1, round(height * strength))
    few = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST))


CORRUPTIONS: dict[str, tuple[Callable[[Array, float, Generator], Array], tuple[float, ...]]] = {
    "none": (_nothing, (0, 0, 0, 0, 0)),
    "noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": (_blur, (1.0, 2.0, 3.0, 4.0, 6.0)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}
"""{corruption: (function of image, strength and random numbers; its strengths by severity)}."""
