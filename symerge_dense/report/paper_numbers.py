"""Numbers that papers report, for comparison with a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class PublishedColumn(NamedTuple):
    """A metric as a paper prints it.

    Args:
        task: name of the task.
        metric: name of the metric in this package.
        title: heading of the column.
        higher_is_better: False for errors.
        factor: the printed number is ours times this.
    """

    task: str
    metric: str
    title: str
    higher_is_better: bool
    factor: float = 1.0


class PublishedRow(NamedTuple):
    """A row of a paper's table.

    Args:
        method: name of the method, as printed.
        values: one per column, as printed.
        spread: standard deviations, if the paper reports them.
    """

    method: str
    values: tuple[float, ...]
    spread: tuple[float, ...] | None = None


class Setting(NamedTuple):
    """How the numbers of a paper were measured, in the words of a recorded config.

    Args:
        data: class of the data set.
        split: of it, in this package's words.
        backbone: timm's name.
        size: of the images, [H, W] as a record has it.
        classes: of the segmentation.
        protocol: of ``evaluation.protocols``; None: the source does not say.
    """

    data: str
    split: str
    backbone: str
    size: str
    classes: str
    protocol: str | None = None


class PublishedTable(NamedTuple):
    """A paper's table.

    Args:
        title: what was measured.
        source: where the numbers are printed.
        setting: how they were measured.
        columns: of the table.
        rows: by key in results.json, or else by the method's name in this package.
    """

    title: str
    source: str
    setting: Setting
    columns: tuple[PublishedColumn, ...]
    rows: Mapping[str, PublishedRow]

    def tasks(self, row: str) -> dict[str, dict[str, dict[str, Any]]]:
        """A row in the form of results.json, in our units.

        Args:
            row: its key.

        Returns:
            ``{task: {metric: {value, higher_is_better}}}``.
        """
        tasks: dict[str, dict[str, dict[str, Any]]] = {}
        for column, value in zip(self.columns, self.rows[row].values, strict=True):
            entry = {"value": value / column.factor, "higher_is_better": column.higher_is_better}
            tasks.setdefault(column.task, {})[column.metric] = entry
        return tasks


_NYUV2_COLUMNS = (
    PublishedColumn("segmentation", "mIoU", "mIoU ↑", True),
    PublishedColumn("segmentation", "pixel_accuracy", "PAcc ↑", True),
    PublishedColumn("depth", "abs", "AErr cm ↓", False, 100),
    PublishedColumn("depth", "rel", "RErr % ↓", False, 100),
    PublishedColumn("normals", "mean", "Normal ° ↓", False),
)

_NYUV2 = Setting("NYUv2", "val", "resnet50", "[288, 384]", "13")

PUBLISHED = {
    "nyuv2-symerge": PublishedTable(
        "NYUv2, 13 classes, ResNet-50, three experts",
        "SyMerge project page (arXiv 2412.19098); SyMerge over 5 runs",
        _NYUV2,
        _NYUV2_COLUMNS,
        {
            "experts": PublishedRow("Individual", (52.0, 74.2, 41.5, 17.3, 24.2)),
            "average": PublishedRow("Weight averaging", (36.6, 64.0, 55.0, 23.2, 30.0)),
            "task_arithmetic": PublishedRow("Task arithmetic", (31.6, 60.3, 56.7, 24.0, 30.6)),
            "ties": PublishedRow("TIES", (39.9, 62.7, 61.3, 27.3, 36.2)),
            "magmax": PublishedRow("MagMax", (24.7, 54.7, 60.3, 23.9, 30.3)),
            "lines": PublishedRow("LiNeS, task arithmetic", (36.2, 64.0, 54.2, 22.4, 29.1)),
            "emr": PublishedRow("EMR", (41.5, 67.2, 48.6, 19.4, 26.5)),
            "surgery": PublishedRow("Surgery, task arithmetic", (43.3, 67.4, 55.3, 24.7, 34.7)),
            "prob_surgery": PublishedRow("ProbSurgery, task arithmetic", (43.6, 67.6, 52.6, 22.3, 36.7)),
            "merged": PublishedRow("SyMerge", (49.8, 73.1, 45.3, 18.8, 26.2), (0.3, 0.2, 0.6, 0.5, 0.1)),
        },
    ),
    "nyuv2-fusionbench": PublishedTable(
        "NYUv2, 13 classes, ResNet-50, three experts",
        "FusionBench (arXiv 2406.03280), docs/modelpool/nyuv2.md",
        _NYUV2._replace(protocol="libmtl"),
        _NYUV2_COLUMNS,
        {
            "experts": PublishedRow("Individual", (52.0, 73.8, 42.5, 17.7, 24.7)),
            "average": PublishedRow("Weight averaging", (39.0, 67.0, 55.1, 22.7, 30.4)),
            "task_arithmetic": PublishedRow("Task arithmetic 0.3", (33.6, 63.3, 56.3, 23.2, 31.3)),
            "ties": PublishedRow("TIES 0.3", (36.3, 61.7, 60.5, 24.5, 33.1)),
        },
    ),
}
"""Tables by the name that ``symerge report table --paper`` takes."""
