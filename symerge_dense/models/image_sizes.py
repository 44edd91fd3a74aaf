"""Which image sizes a network takes, and the padding of images to them.

Networks are asked on PyTorch's meta device, where a pass computes shapes alone.
"""

from __future__ import annotations

import inspect
import json
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor

from symerge_dense.models.timm_weights import create

DYNAMIC = "dynamic_img_size"
COARSEST = 32  # stride of the deepest level of a usual pyramid, which a network may need though it is not read
TRIES = 8  # multiples of it that are tried where the nearest one does not fit
SIZE_ERRORS = (RuntimeError, AssertionError, IndexError, ValueError)  # what timm's networks raise at a wrong size

Size = tuple[int, int]


@cache
def takes_any_size(name: str) -> bool:
    """Whether a network resamples its position embedding, or its windows, to the image.

    Args:
        name: timm model.
    """
    with torch.device("meta"):
        return DYNAMIC in inspect.signature(type(create(name, {})).__init__).parameters


def any_size(name: str, timm_args: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which a network takes any size, where it can and the arguments do not say otherwise.

    Args:
        name: timm model.
        timm_args: its arguments, as the user gave them.

    Raises:
        ValueError: the network cannot be built.
    """
    said = {DYNAMIC, "strict_img_size"} & set(timm_args)
    return timm_args if said or not takes_any_size(name) else {**timm_args, DYNAMIC: True}


def check_divides(embed: PatchEmbed, *size: int) -> None:
    """Refuse a size that the patches do not divide.

    Args:
        embed: patch embedding.
        *size: H and W.

    Raises:
        ValueError: with the nearest sizes.
    """
    patch = embed.patch_size
    if any(side % step for side, step in zip(size, patch, strict=True)):
        below, above = (
            [max(step, side // step * step + extra * step) for side, step in zip(size, patch, strict=True)]
            for extra in (0, 1)
        )
        raise ValueError(
            f"image size {tuple(size)} is not divisible by the patch size {tuple(patch)}; the nearest "
            f"valid sizes are {below[0]} or {above[0]} high and {below[1]} or {above[1]} wide."
        )


def patched_size(embed: PatchEmbed, height: int, width: int) -> Size:
    """The size of whole patches that images are padded to.

    Args:
        embed: patch embedding.
        height: of the images.
        width: of the images.

    Raises:
        ValueError: the network is made for another size, and its position embedding cannot be resampled.
    """
    if embed.img_size is not None and embed.strict_img_size and (height, width) != tuple(embed.img_size):
        size = tuple(embed.img_size)
        raise ValueError(
            f"this backbone is built for images of {size}, not {(height, width)}; build it with "
            f"img_size={(height, width)}, or resize the images to {size}."
        )
    if embed.dynamic_img_pad:  # timm pads by itself
        return height, width
    return _up(height, embed.patch_size[0]), _up(width, embed.patch_size[1])


def strided_size(network: str, step: int, height: int, width: int) -> Size:
    """The size that images are padded to for a network without patches: their own, where the network takes it.

    Args:
        network: JSON text of the backbone's spec.
        step: the coarsest stride.
        height: of the images.
        width: of the images.

    Raises:
        ValueError: no size that is near fits.
    """
    if not (height % step or width % step) or fits(network, height, width):
        return height, width
    padded = _up(height, step), _up(width, step)
    if fits(network, *padded):
        return padded
    fault = wrong_size(network, step, height, width)
    if fault is None:
        return height, width
    raise fault


@torch.compiler.disable  # a compiled network asks before it runs
@lru_cache(maxsize=512)
def fits(network: str, height: int, width: int) -> bool:
    """Whether a network's features can be computed at a size.

    Args:
        network: JSON text of the backbone's spec.
        height: of the images.
        width: of the images.
    """
    spec = json.loads(network)
    name, levels = spec.pop("name"), tuple(spec.pop("out_indices"))
    with torch.device("meta"), torch.no_grad(), torch.autocast("cpu", enabled=False):
        body = create(name, any_size(name, spec), features_only=True, out_indices=levels).eval()
        try:
            body(torch.empty(1, 3, height, width))
        except SIZE_ERRORS:
            return False
    return True


def wrong_size(network: str, step: int, height: int, width: int) -> ValueError | None:
    """The error for a size that a network does not take; it names one that it takes.

    Args:
        network: JSON text of the backbone's spec.
        step: the coarsest stride.
        height: of the images.
        width: of the images.

    Returns:
        None where no size is known to fit: then the network cannot be asked, which says nothing about the size.
    """
    spec = json.loads(network)
    made_for = spec.get("img_size") or _default_size(spec["name"])
    near = [(_up(height, step * times), _up(width, step * times)) for times in range(1, TRIES + 1)]
    found = next((size for size in [*near, tuple(made_for)] if fits(network, *size)), None)
    if found is None:
        return None
    return ValueError(
        f"backbone {spec['name']!r} does not take images of {(height, width)}; resize the images to {found}."
    )


def _default_size(name: str) -> Size:
    """The (H,W) that a timm network was pretrained at."""
    with torch.device("meta"):
        height, width = create(name, {}).pretrained_cfg.get("input_size", (3, 224, 224))[-2:]
    return int(height), int(width)


def padded(image: Tensor, size: Size) -> Tensor:
    """Images whose last row and last column are repeated down to and out to a larger size.

    Args:
        image: (N,3,H,W).
        size: not smaller.
    """
    down, across = size[0] - image.shape[-2], size[1] - image.shape[-1]
    return F.pad(image, (0, across, 0, down), mode="replicate") if down or across else image


def _up(side: int, step: int) -> int:
    return -(-side // step) * step
