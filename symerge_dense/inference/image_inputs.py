"""What a user gives as an image, as RGB pixels, and the size at which a model is asked about it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from symerge_dense.datasets.image_files import Pixels, read_image
from symerge_dense.datasets.resize import resize

Size = tuple[int, int]
ImageInput = str | Path | np.ndarray[Any, Any] | Image.Image | Tensor
KINDS = "a path, a PIL image, an array (H,W,3) or (H,W), or a tensor (3,H,W), in 0..255"
LAYERS = (1, 3, 4)  # grey, RGB, RGBA


def several(images: Any) -> list[ImageInput] | None:
    """The images of a list, an array (N,H,W,C) or a tensor (N,C,H,W); None for a single image.

    Args:
        images: what a user gives.
    """
    batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
    return list(images) if batch or isinstance(images, (list, tuple)) else None


def to_pixels(image: ImageInput) -> Pixels:
    """An image as RGB.

    Args:
        image: the path of a file (turned upright as its EXIF says), a PIL image, an array (H,W,3) RGB, (H,W,4) RGBA or
            (H,W) or (H,W,1) grey, or a tensor (3,H,W), (4,H,W) or (1,H,W). Arrays and tensors are uint8 or float in
            0..255. Transparent pixels are laid over white.

    Returns:
        uint8 (H,W,3).

    Raises:
        ValueError: none of these, or a file that cannot be read.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        if image.ndim != 3 or shape[0] not in LAYERS or not image.numel():
            raise ValueError(f"a tensor of shape {shape} is no image: give (3,H,W) RGB or (1,H,W) grey.")
        value = image.detach().cpu().permute(1, 2, 0)
        return _of_numbers((value.float() if value.is_floating_point() else value).numpy(), "a tensor")
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is {KINDS}; this is {type(image).__name__}.")
    layers = image[..., None] if image.ndim == 2 else image
    if layers.ndim != 3 or layers.shape[2] not in LAYERS or not layers.size:
        raise ValueError(f"an array of shape {image.shape} is no image: give (H,W,3) RGB or (H,W) grey.")
    return _of_numbers(layers, "an array")


def _of_numbers(values: np.ndarray[Any, Any], kind: str) -> Pixels:
    """RGB of (H,W,C) in 0..255: the one rule for arrays and tensors."""
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        if values.dtype.kind != "f" or not ((low >= -0.5 and 1.0 < high < 255.5) or low == high == 0.0):
            raise ValueError(
                f"{kind} of {values.dtype} with values {low:.3g} to {high:.3g} is no image in 0..255: give uint8, or "
                "floats in 0..255 (an image in 0..1 times 255), not normalised."
            )
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if values.shape[2] == 4:
        return _of_pillow(Image.fromarray(np.ascontiguousarray(values)))
    return np.ascontiguousarray(values if values.shape[2] == 3 else np.repeat(values, 3, axis=2))


def _of_pillow(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        raise ValueError(
            f"a PIL image of mode {image.mode} has no known white; give image.convert('RGB') after scaling it to "
            "0..255, or the path of its file."
        )
    turned = ImageOps.exif_transpose(image)
    if "A" in turned.getbands() or "transparency" in turned.info:  # over white, as a file is read
        canvas = Image.new("RGBA", turned.size, "white")
        canvas.alpha_composite(turned.convert("RGBA"))
        turned = canvas
    return np.array(turned.convert("RGB"))


def to_batch(pixels: Pixels, size: Size) -> Tensor:
    """One image as a model takes it.

    Args:
        pixels: uint8 (H,W,3).
        size: (h,w) that it is resized to.

    Returns:
        float32 (1,3,h,w) in 0..255.
    """
    resized = np.ascontiguousarray(resize(pixels, size))
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float()


def like_learned(own: Size, learned: Size, steps: Size) -> Size:
    """A size with an image's own aspect and the area that a model learned on, its sides rounded to ``steps``.

    Args:
        own: (H,W) of the image.
        learned: (H,W) of the images that the model learned on.
        steps: what the sides are multiples of.

    >>> like_learned((480, 640), (288, 384), (32, 32)), like_learned((4000, 3000), (288, 384), (14, 14))
    ((288, 384), (378, 294))
    """
    scale = math.sqrt(learned[0] * learned[1] / (own[0] * own[1]))
    exact = own[0] * scale, own[1] * scale
    if (round(exact[0]), round(exact[1])) == learned:
        return learned
    return max(round(exact[0] / steps[0]), 1) * steps[0], max(round(exact[1] / steps[1]), 1) * steps[1]


def checked_size(size: Any) -> Size | Literal["native"] | None:
    """``size`` as Predictor takes it.

    Args:
        size: (H,W), 'native' or None.

    Raises:
        ValueError: it is none of them.
    """
    if size is None or size == "native":
        return size
    if (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size)
    ):
        return size[0], size[1]
    raise ValueError(f"size={size!r}: give (height, width) in pixels, 'native' for each image's own, or None.")
