"""An exported file against PyTorch: the largest difference of every task on real images, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symerge_dense.datasets.image_files import find_images, read_image
from symerge_dense.datasets.resize import resize
from symerge_dense.datasets.rooms.dataset import SIZE as ROOM_SIZE
from symerge_dense.datasets.rooms.render import render_frame
from symerge_dense.models.image_sizes import Size
from symerge_dense.progress import say

TOLERANCE = {False: 1e-4, True: 2e-2}  # by fp16: of an output, times its largest absolute value
SHARE = {False: 1e-3, True: 5e-2}  # by fp16: of pixels whose decision may differ: a tie is decided by the last bit
MOST = 16  # images of --check that are used
SMALLEST = 1e-4  # what counts as the largest value of an output that is zero everywhere
ROOMS = 4  # rendered where no image is given

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """How far an exported task is from PyTorch's float32 result.

    Args:
        largest: absolute difference; of class ids, 1 where any differs.
        scale: largest absolute value of the reference.
        share: of values that differ by more than the tolerance.
        tolerance: allowed, in the output's unit.
        images: compared.
    """

    largest: float
    scale: float
    share: float
    tolerance: float
    images: int

    def fits(self, decided: bool, fp16: bool) -> bool:
        """Whether it is allowed: raw outputs by the largest difference, decided ones by the share of values.

        Args:
            decided: whether the outputs are decisions.
            fp16: whether the file computes in half precision.
        """
        return self.share <= SHARE[fp16] if decided else self.largest <= self.tolerance


def check_images(given: Sequence[str | Path], size: Size) -> Tensor:
    """The images of a check.

    Args:
        given: files and folders; none renders rooms.
        size: (H,W) that they are resized to.

    Returns:
        uint8 (N,3,H,W), RGB.

    Raises:
        ValueError: a file or folder is missing or no image.
    """
    paths = [path for entry in given for path in (find_images(entry) if Path(entry).is_dir() else [Path(entry)])]
    pictures = [read_image(path) for path in paths[:MOST]]
    pictures = pictures or [render_frame(index, "test", ROOM_SIZE, 0)["image"] for index in range(ROOMS)]
    stacked = np.stack([resize(picture, size) for picture in pictures])
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))


def compare(
    reference: Callable[[Tensor], Outputs], exported: Callable[[Tensor], Outputs], batches: Sequence[Tensor], fp16: bool
) -> dict[str, Difference]:
    """The differences of two programs on the same images.

    Args:
        reference: images to {task: output}, in float32 by PyTorch.
        exported: the same, of the exported file.
        batches: images (N,3,H,W).
        fp16: whether the file computes in half precision.

    Returns:
        {task: its difference}.

    Raises:
        ValueError: a shape or a number type differs.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in batches:
        with torch.no_grad():
            wanted, found = reference(batch), exported(batch)
        for task, output in wanted.items():
            if found[task].shape != output.shape or found[task].dtype != output.dtype:
                raise ValueError(
                    f"the exported {task} is {found[task].dtype} {tuple(found[task].shape)} where PyTorch gives "
                    f"{output.dtype} {tuple(output.shape)}; export with a fixed --size."
                )
            pairs.setdefault(task, []).append((output, found[task]))
    return {task: _difference(both, sum(map(len, batches)), fp16) for task, both in pairs.items()}


def _difference(both: Sequence[tuple[Tensor, Tensor]], images: int, fp16: bool) -> Difference:
    gaps = torch.cat([_gap(wanted, found).flatten() for wanted, found in both])
    scale = max(float(wanted.double().abs().max()) for wanted, _ in both)
    exact = not both[0][0].is_floating_point()
    tolerance = 0.0 if exact else TOLERANCE[fp16] * max(SMALLEST, scale)
    return Difference(float(gaps.max()), scale, float((gaps > tolerance).double().mean()), tolerance, images)


def _gap(wanted: Tensor, found: Tensor) -> Tensor:
    if not wanted.is_floating_point():
        return (wanted != found).double()
    return (wanted.double() - found.double()).abs().nan_to_num(float("inf"), float("inf"))


def report(found: dict[str, Difference], decided: bool, fp16: bool, where: str) -> dict[str, Any]:
    """Print the differences, and give them as JSON-able values.

    Args:
        found: of ``compare``.
        decided: whether the outputs are decisions.
        fp16: whether the file computes in half precision.
        where: what ran the exported file, for the message.

    Raises:
        ValueError: one is larger than allowed.
    """
    for task, one in found.items():
        on = f"on {one.images} image{'s' if one.images > 1 else ''} in {where}"
        if decided and not one.tolerance:
            say(f"{task}: {one.share:.3%} of values differ from PyTorch (allowed: {SHARE[fp16]:.1%}), {on}")
            continue
        more = f"; more in {one.share:.3%} of values, allowed: {SHARE[fp16]:.1%}" if decided else ""
        say(
            f"{task}: largest difference {one.largest:.1e} from PyTorch (allowed: {one.tolerance:.1e}{more}; values "
            f"up to {one.scale:.3g}), {on}"
        )
    wrong = [task for task, one in found.items() if not one.fits(decided, fp16)]
    if wrong:
        raise ValueError(
            f"the exported {', '.join(wrong)} differs too much from PyTorch, so no file was written; export "
            f"{'without --fp16' if fp16 else 'with another --opset, or --to torch-export'}."
        )
    return {task: asdict(one) for task, one in found.items()}
