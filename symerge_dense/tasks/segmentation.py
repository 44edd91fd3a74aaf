"""Semantic segmentation: the class of every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from mmengine.dist import all_reduce
from torch import Tensor

from symerge_dense.datasets.class_names import NAMES_BY_COUNT
from symerge_dense.datasets.targets import INVALID_LABEL
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import MOVES, Array
from symerge_dense.tasks.colors import Legend, class_colors, keep_black
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.predictions import moments
from symerge_dense.tasks.protocols import MTANTask

LEAST_SHARE = 1e-3  # added to the share of a class, so that one that is hardly there does not decide alone


@TASKS.register_module()
class Segmentation(MTANTask):
    """Logits of ``classes`` classes per pixel; targets are int64 class ids 0..classes-1, 255 is invalid.

    Loss: cross-entropy; on a soft label its excess over the label's own entropy, KL(label || softmax(output)), which
    has the same gradient and is 0 at a match. Metrics in percent, from one confusion matrix of the whole data set:
    ``mIoU``, mean intersection over union of the classes that occur in truth or prediction, and ``pixel_accuracy``.

    Args:
        classes: number of classes C, 2..255.
        class_names: one name per class; None takes those of a known list of that length, or 'class 0', 'class 1', ...
        palette: one RGB colour (0..255) per class, None takes ``class_colors``. One that is nearly black is made a
            little brighter, for black means 'no label'.

    Raises:
        ValueError: ``classes`` is out of range, or ``class_names`` or ``palette`` has another length,
            or a colour is none.
    """

    name: ClassVar[str] = "segmentation"
    class_map: ClassVar[bool] = True
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)
    metrics: ClassVar[dict[str, bool]] = {"mIoU": True, "pixel_accuracy": True}
    headline: ClassVar[str] = "mIoU"

    def __init__(
        self,
        classes: int = 13,
        class_names: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not 2 <= classes <= INVALID_LABEL:
            raise ValueError(
                f"classes={classes} must be 2..{INVALID_LABEL}: {INVALID_LABEL} marks pixels without label."
            )
        if class_names is None:
            class_names = NAMES_BY_COUNT.get(classes) or [f"class {index}" for index in range(classes)]
        palette = class_colors(classes) if palette is None else palette
        for what, entries in (("class_names", class_names), ("palette", palette)):
            if len(entries) != classes:
                raise ValueError(f"{what} has {len(entries)} entries for {classes} classes; give one per class.")
        if not all(len(color) == 3 and min(color) >= 0 and max(color) <= 255 for color in palette):
            raise ValueError(f"palette {palette} must have colours (red, green, blue) of whole numbers from 0 to 255.")
        self.channels = classes
        self.class_names = tuple(class_names)
        self._colors = np.zeros((INVALID_LABEL + 1, 3), np.uint8)
        self._colors[:classes] = keep_black(np.asarray(palette).astype(np.uint8), np.ones(classes, bool))

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose target is not 255.

        Args:
            target: class ids (N,H,W).
        """
        return target != INVALID_LABEL

    def pixel_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of class ids, or divergence from probabilities, >= 0, in nats.

        Args:
            output: logits (N,C,h,w).
            target: class ids (N,h,w), or probabilities (N,C,h,w).

        Raises:
            ValueError: a class id is neither 0..C-1 nor 255.
        """
        if target.is_floating_point():
            return self._divergence(output, target)
        label = self._class_ids(target)
        return F.cross_entropy(
            output.float(), label.where(label != INVALID_LABEL, label.new_zeros(())), reduction="none"
        )

    def _divergence(self, output: Tensor, target: Tensor) -> Tensor:
        label = target.float()
        label = label / label.sum(dim=1, keepdim=True).clamp(min=1e-6)  # undo the rounding of a stored label
        return (torch.xlogy(label, label) - label * F.log_softmax(output.float(), dim=1)).sum(dim=1)

    def _class_ids(self, target: Tensor) -> Tensor:
        """``target`` as int64; raises ValueError for a label that is neither a class nor 255."""
        label = target.long()
        unknown = (label < 0) | ((label >= self.channels) & (label != INVALID_LABEL))
        if unknown.any():
            found = label[unknown].unique()[:5].tolist()
            raise ValueError(
                f"segmentation labels {found} are outside 0..{self.channels - 1} and not {INVALID_LABEL} "
                f"(no label); build Segmentation with the data's number of classes, or map the labels."
            )
        return label

    def self_label(self, expert_output: Tensor, soft: bool = True) -> Tensor:
        """Probabilities (N,C,h,w), or class ids int64 (N,h,w).

        Args:
            expert_output: logits (N,C,h,w).
            soft: True gives probabilities, False class ids.
        """
        output = expert_output.detach()
        return output.float().softmax(dim=1) if soft else self.decide(output)

    def confidence(self, output: Tensor) -> Tensor:
        """Probability of the likeliest class, 1/C..1, (N,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        return output.float().softmax(dim=1).amax(dim=1)

    def entropy(self, output: Tensor) -> Tensor:
        """Entropy of the class distribution, 0..log C, (N,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        log_probability = output.float().log_softmax(dim=1)
        return -(log_probability.exp() * log_probability).sum(dim=1)

    def rarity(self, label: Tensor, exponent: float, valid: Tensor) -> Tensor:
        """Weights that favour pixels of rare classes: mIoU counts classes alike, a mean over pixels does not.

        The shares of the classes are those of the batch, over all processes.

        Args:
            label: probabilities (N,C,h,w), or class ids int64 (N,h,w) without invalid ones.
            exponent: see ``DenseTask.rarity``.
            valid: bool (N,h,w), the pixels that have a label.

        Returns:
            (N,h,w), of mean 1 over valid pixels.
        """
        soft = label.is_floating_point()
        given = label.float() if soft else rearrange(F.one_hot(label, self.channels), "n h w c -> n c h w").float()
        pixels = reduce(given * valid[:, None], "n c h w -> c", "sum")
        all_reduce(pixels)
        shares = pixels / pixels.sum().clamp(min=1)
        weights = (shares + LEAST_SHARE) ** -exponent
        return torch.einsum("nchw,c->nhw", given, weights) / (shares @ weights).clamp(min=LEAST_SHARE)

    def decide(self, output: Tensor) -> Tensor:
        """Class ids int64 (N,h,w).

        Args:
            output: logits (N,C,h,w).
        """
        return output.max(dim=1).indices  # on a CPU four times faster than argmax

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows: the flattened confusion matrix; entry truth * C + prediction counts pixels.

        Args:
            output: logits (N,C,H,W).
            target: class ids (N,H,W).

        Raises:
            ValueError: a class id is neither 0..C-1 nor 255.
        """
        label, cells = self._class_ids(target), self.channels**2
        image = torch.arange(len(label), device=label.device).view(-1, 1, 1)
        cell = image * cells + label * self.channels + self.decide(output)
        counts = torch.bincount(cell[self.valid(label)], minlength=len(label) * cells)
        return counts.view(len(label), cells).double()

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics mIoU and pixel_accuracy, percent.

        Args:
            total: sum of the rows of ``statistics``, (C * C,).
        """
        iou, accuracy = self._shares(total)
        return self._by_class(self.table(float(100 * iou.nanmean()), 100 * accuracy), iou)

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Percent.

        Args:
            metric: its name.
        """
        return "%"

    def _shares(self, total: Tensor) -> tuple[Tensor, float]:
        """Intersection over union of each class (C,), NaN for an absent one, and the fraction of correct pixels."""
        matrix = total.view(self.channels, self.channels).double()
        hit = matrix.diagonal()
        return hit / (matrix.sum(0) + matrix.sum(1) - hit), float(hit.sum() / matrix.sum())

    def _by_class(self, found: dict[str, Metric], iou: Tensor) -> dict[str, Metric]:
        """``found`` with the classes' own numbers beside their mean; a name that several classes have gets its id."""
        twice = len(set(self.class_names)) < len(self.class_names)
        names = [f"{index} {name}" if twice else name for index, name in enumerate(self.class_names)]
        values = [None if math.isnan(value) else value for value in (100 * iou).tolist()]
        parts = dict(zip(names, values, strict=True))
        return {**found, "mIoU": found["mIoU"]._replace(parts=parts)}

    def absent_classes(self, total: Tensor) -> list[str]:
        """Names of the classes that occur neither in truth nor in prediction, so that mIoU leaves them out.

        Args:
            total: sum of the rows of ``statistics``, (C * C,).
        """
        matrix = total.view(self.channels, self.channels)
        return [name for name, seen in zip(self.class_names, matrix.sum(0) + matrix.sum(1), strict=True) if seen == 0]

    def remarks(self, total: Tensor) -> list[str]:
        """Name the absent classes.

        Args:
            total: sum of the rows of ``statistics``, (C * C,).
        """
        absent = self.absent_classes(total)
        return [f"mIoU leaves out what neither truth nor prediction has: {', '.join(absent)}"] if absent else []

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """The confusion matrix of ``statistics``: it covers the whole data set, so that batches do not matter.

        Args:
            output: logits (N,C,H,W).
            target: class ids (N,H,W).
        """
        return self.statistics(output, target)

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics mIoU, NaN as soon as one class is absent, and pixel_accuracy, percent.

        Args:
            total: sum of the rows of ``mtan_statistics``, (C * C,).
        """
        iou, accuracy = self._shares(total)
        return self._by_class(self.table(float(100 * iou.mean()), 100 * accuracy), iou)

    def mtan_remarks(self, total: Tensor) -> list[str]:
        """Name the absent classes.

        Args:
            total: sum of the rows of ``mtan_statistics``, (C * C,).
        """
        absent = ", ".join(self.absent_classes(total))
        return [f"mIoU is NaN by the published rule: neither truth nor prediction has {absent}"] if absent else []

    @property
    def invalid_value(self) -> float:
        """No class has this id."""
        return float(INVALID_LABEL)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Each class in its palette colour.

        Args:
            prediction: class ids (H,W).
            limits: not used.
        """
        picture: Array = self._colors[prediction.detach().cpu().numpy().astype(np.uint8)]
        return picture

    def average(self, outputs: Sequence[Tensor], weights: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Logarithm of the mean probabilities, and the variance of the probabilities, summed over classes.

        Args:
            outputs: logits (N,C,h,w), one per view.
            weights: one number >= 0 per view; None weighs all alike.
        """
        mean, variance = moments([output.float().softmax(dim=1) for output in outputs], weights)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log(), variance

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Names and colours of the classes.

        Args:
            limits: not used.
        """
        colors = self._colors[: self.channels].tolist()
        return Legend(self.class_names, tuple((red, green, blue) for red, green, blue in colors))
