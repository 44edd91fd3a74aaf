"""Edges: is this pixel on a boundary between surfaces?"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from symerge_dense.datasets.targets import INVALID_LABEL, boundary
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import MOVES, Array
from symerge_dense.tasks.colors import Legend, keep_black
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.probability import Probability, f1_precision_recall, outcomes
from symerge_dense.tasks.storage import PngStorage

PAPER, INK = 245.0, 40.0  # grey levels of a picture


@TASKS.register_module()
class Edges(Probability):
    """One logit per pixel; targets 0 or 1, 255 is invalid.

    Loss: binary cross-entropy in which an edge pixel weighs ``positive_weight`` times as much as another. On a soft
    label q it is (1 + (positive_weight - 1) q) KL(q || p): the same number for q in {0, 1}, and 0 at p = q.
    With weight w, p = 0.5 stands for an edge probability of 1 / (1 + w); the F1-optimal threshold is half the best F1
    (Lipton et al. 2014, arXiv 1402.1892), hence the default. Metrics at p > 0.5 over all valid pixels of the data
    set, in percent: ``f1``, ``precision``, ``recall``.

    Args:
        positive_weight: weight of an edge pixel, > 0; 1 weighs all pixels alike.

    Raises:
        ValueError: ``positive_weight`` is not a positive finite number.
    """

    name: ClassVar[str] = "edges"
    moves: ClassVar[frozenset[str]] = frozenset(MOVES)
    metrics: ClassVar[dict[str, bool]] = {"f1": True, "precision": True, "recall": True}
    headline: ClassVar[str] = "f1"
    interpolation: ClassVar[Literal["nearest", "masked"]] = "nearest"
    channels: int = 1

    def __init__(self, positive_weight: float = 3.0) -> None:
        super().__init__(positive_weight)

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose target is between 0 and 1.

        Args:
            target: (N,1,H,W).
        """
        return ((target >= 0) & (target <= 1)).all(dim=1)

    def decide(self, output: Tensor) -> Tensor:
        """1 where the edge probability is above 0.5, else 0; float32 (N,1,h,w).

        Args:
            output: logits (N,1,h,w).
        """
        return (output > 0).float()

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Rows [true positives, false positives, false negatives]; a target above 0.5 is an edge.

        Args:
            output: logits (N,1,H,W).
            target: (N,1,H,W).
        """
        return outcomes(output > 0, target > 0.5, self.valid(target))

    def summarize(self, total: Tensor) -> dict[str, Metric]:
        """Metrics f1, precision, recall in percent.

        A precision without predicted edges, a recall without true edges and an f1 without either are NaN.

        Args:
            total: sum of the rows of ``statistics``, (3,).
        """
        return self.table(*f1_precision_recall(total))

    @property
    def invalid_value(self) -> float:
        """Neither 0 nor 1."""
        return float(INVALID_LABEL)

    @property
    def storage(self) -> PngStorage:
        """0 or 1 as it is; 255 is stored for 'no label'."""
        return PngStorage("uint8", invalid=INVALID_LABEL, marker=self.invalid_value)

    def colorize(self, prediction: Tensor, limits: tuple[float, float] | None = None) -> Array:
        """Dark lines on white paper.

        Args:
            prediction: 0/1 decision or target (1,H,W).
            limits: not used.
        """
        value = prediction.detach().float().cpu()
        level = (PAPER + (INK - PAPER) * value[0].nan_to_num().clamp(0, 1)).round().byte()
        return keep_black(level.unsqueeze(-1).repeat(1, 1, 3).numpy(), self.valid(value[None])[0])

    @classmethod
    def metric_unit(cls, metric: str) -> str:
        """Percent.

        Args:
            metric: its name.
        """
        return "%"

    def legend(self, limits: tuple[float, float] | None = None) -> Legend:
        """Line and paper.

        Args:
            limits: not used.
        """
        return Legend(("no", "yes"), ((round(PAPER),) * 3, (round(INK),) * 3))


@TASKS.register_module()
class SemanticEdges(Edges):
    """Boundaries between classes, made from the labels of a segmentation; two chairs side by side have none."""

    name: ClassVar[str] = "semantic_edges"
    source: ClassVar[str | None] = "segmentation"

    def derive(self, target: Array) -> Array:
        """Both sides of every boundary between two classes; one towards a pixel without label is no edge.

        Args:
            target: class numbers (H,W).
        """
        return boundary(target, target != INVALID_LABEL)


@TASKS.register_module()
class OcclusionEdges(Edges):
    """Where one surface hides another: edges of depth, without the creases at which surfaces meet."""

    name: ClassVar[str] = "occlusion_edges"
