"""Images of another data set, corrupted as a camera or a file might: noise, blur, contrast, brightness, JPEG, pixels.

Two more make images foreign: 'solarize' turns bright colours into their negatives, in the end all of them, and 'jigsaw'
exchanges the tiles of a grid. The strengths of the others are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019,
arXiv 1903.12261) for images of 224 pixels; blur is scaled with the image's height, so that at 64 pixels the weakest is
next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np

from symerge_dense.datasets.base import Array
from symerge_dense.datasets.transforms import Augment, TargetRule
from symerge_dense.datasets.wrapper import Wrapper
from symerge_dense.registry import DATASETS, did_you_mean

HEIGHT = 224  # of the images that the strengths were chosen for


@DATASETS.register_module()
class Corrupted(Wrapper):
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
        self.corruption, self.severity = corruption, severity
        super().__init__(dataset, tasks, augment, seed)

    def image(self, index: int) -> Array:
        image = super().image(index)
        pixels = np.ascontiguousarray(image.round().clip(0, 255), np.uint8)  # albumentations takes floats for 0..1
        change = _pipeline(self.corruption, self.severity, image.shape[0])
        change.set_random_seed(int(np.random.default_rng((self.seed, index)).integers(2**31)))
        return np.asarray(change(image=pixels)["image"])


@cache
def _pipeline(corruption: str, severity: int, height: int) -> Any:
    """The transform of albumentations for images of a height."""
    import albumentations

    name, arguments, strengths = CORRUPTIONS[corruption]
    strength = strengths[severity - 1]
    strength = strength * height / HEIGHT if corruption == "blur" else strength
    return albumentations.Compose([getattr(albumentations, name)(**arguments(strength), p=1)])


_KEPT = {"brightness": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
_BLOCKS = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_NEAREST}
CORRUPTIONS: dict[str, tuple[str, Callable[[Any], dict[str, Any]], tuple[float, ...]]] = {
    "none": ("NoOp", lambda _: {}, (0, 0, 0, 0, 0)),
    "noise": ("GaussNoise", lambda std: {"std_range": (std, std)}, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": ("GaussianBlur", lambda sigma: {"blur_limit": 0, "sigma_limit": (sigma, sigma)}, (1, 2, 3, 4, 6)),
    "contrast": ("ColorJitter", lambda by: {**_KEPT, "contrast": (by, by)}, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (
        "HueSaturationValue",
        lambda share: {"hue_shift_limit": 0, "sat_shift_limit": 0, "val_shift_limit": (255 * share, 255 * share)},
        (0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "jpeg": ("ImageCompression", lambda quality: {"quality_range": (quality, quality)}, (25, 18, 15, 10, 7)),
    "pixelate": (
        "Downscale",
        lambda scale: {"scale_range": (scale, scale), "interpolation_pair": _BLOCKS},
        (0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "solarize": ("Solarize", lambda above: {"threshold_range": (above, above)}, (0.6, 0.45, 0.3, 0.15, 0.0)),
    "jigsaw": ("RandomGridShuffle", lambda tiles: {"grid": (tiles, tiles)}, (2, 3, 4, 6, 8)),
}
"""{corruption: (transform of albumentations, its arguments by strength, strength by severity)}."""
