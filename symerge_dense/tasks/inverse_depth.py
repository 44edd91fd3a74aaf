"""Inverse depth: what a stereo rig measures, large for what is near; the second task of Cityscapes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import Array
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.protocols import BatchMeans, labelled
from symerge_dense.tasks.regression import Positive, at_level_of, pixel_sums


@TASKS.register_module()
class InverseDepth(Positive, BatchMeans):
    """Inverse depth in any unit, one channel; a target <= 0 or not finite is invalid. Loss: L1.

    Metrics over all valid pixels of the data set: ``abs`` mean |p-g| (the target's unit), ``rel`` mean |p-g|/g
    (fraction), as in the Cityscapes tables of MTAN (Liu et al. 2019, arXiv 1803.10704) and its followers. Far pixels
    have a small g, so that a few of them can make up most of ``rel``.
    """

    name: ClassVar[str] = "inverse_depth"
    moves: ClassVar[frozenset[str]] = frozenset({"mirror", "zoom", "rotation", "stretch"})
    metrics: ClassVar[dict[str, bool]] = {"abs": False, "rel": False}
    channels: int = 1

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [valid pixels, sum |e|, sum |e|/g].

        Args:
            output: predicted inverse depth (N,1,H,W).
            target: true inverse depth (N,1,H,W).
        """
        return _sums(output, target, self.valid(target))

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics abs (the target's unit), rel (fraction).

        Args:
            total: sum of the rows of ``statistics``, (3,).
        """
        return self.table(*(total[1:] / total[0]).tolist())

    def mtan_statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """The same sums as ``statistics``, over pixels whose target is not 0; a negative one counts.

        Args:
            output: predicted inverse depth (N,1,H,W).
            target: true inverse depth (N,1,H,W).
        """
        return _sums(output, target, labelled(target))

    def mtan_summarize(self, total: Tensor) -> dict[str, Metric]:
        """The same metrics as ``summarize``.

        Args:
            total: sum of the rows of ``mtan_statistics``, (3,).
        """
        return self.summarize(total)

    def zoom(self, target: Array, scale: float) -> Array:
        """Multiply by ``scale``: what looks that many times larger is that many times nearer.

        Some public copies of MTAN's augmentation divide here, as if these were metres.

        Args:
            target: inverse depth (H,W).
            scale: zoom factor >= 1.
        """
        return (target * scale).astype(target.dtype)

    def rescale_output(self, output: Tensor, scale: float, plain: Tensor) -> Tensor:
        """The output at the level of the plain image's: one factor per image, see ``at_level_of``.

        Args:
            output: inverse depth (N,1,h,w) of the resized image.
            scale: makes no difference: what a network makes of it is measured.
            plain: inverse depth (N,1,h,w) of the image itself.
        """
        return at_level_of(output, plain)


def _sums(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    truth = target[:, 0].where(mask, target.new_ones(())).double()
    error = (output[:, 0].double() - truth).abs()
    return pixel_sums(mask, error, error / truth)
