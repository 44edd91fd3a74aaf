"""The choice of conventions, through the whole evaluation of a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from builders import tiny
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils.data import DataLoader

from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.metric import DenseMetric
from symerge_dense.evaluation.protocols import PROTOCOLS, measure
from symerge_dense.pipeline.evaluation_checks import check_protocol
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

DEPTHS = (1.0, 2.0, 4.0)  # of three images; the model says 1 metre everywhere
LABELLED = (4, 1, 2)  # pixels of four


class Constant(nn.Module):
    """Says 1 in the first channel of every task, 0 in the others."""

    def __init__(self, *tasks: DenseTask) -> None:
        super().__init__()
        self.tasks = {task.name: task for task in tasks}
        self.called = False

    def forward(self, image: Tensor, mode: str) -> list[dict[str, Tensor]]:
        self.called = True
        answer = {name: torch.zeros(task.channels, 2, 2) for name, task in self.tasks.items()}
        for output in answer.values():
            output[0] = 1
        return [answer for _ in image]


def scenes() -> list[dict[str, Any]]:
    images = []
    for metres, labelled in zip(DEPTHS, LABELLED, strict=True):
        known = (torch.arange(4) < labelled).view(2, 2)
        normals = torch.zeros(3, 2, 2)
        normals[0 if metres == 1 else 2][known] = 1
        images.append(
            {
                "image": torch.zeros(3, 2, 2),
                "depth": metres * known[None],
                "normals": normals,
                "segmentation": torch.where(known, 0, 255),
            }
        )
    return images


def loader(batch_size: int) -> DataLoader[Any]:
    data: Any = scenes()  # a list serves as a map-style data set
    return DataLoader(data, batch_size)


def test_default_and_mtan_differ_as_documented() -> None:
    model = Constant(Depth(), Normals(), Segmentation(2))
    own, mtan = (evaluate(model, loader(2), "scenes", protocol=name) for name in ("default", "mtan"))
    assert own == evaluate(model, loader(2), "scenes")
    assert [list(metrics) for metrics in own.values()] == [list(metrics) for metrics in mtan.values()]
    # errors of 0, 1, 3 metres on 4, 1, 2 pixels; the first two images are one batch
    assert own["depth"]["abs"].value == pytest.approx(7 / 7)
    assert mtan["depth"]["abs"].value == pytest.approx((1 / 5 + 3) / 2)
    assert mtan["depth"]["rel"].value == pytest.approx((0.5 / 5 + 0.75) / 2)
    assert own["normals"]["mean"].value == pytest.approx(90 * 3 / 7)
    assert mtan["normals"]["mean"].value == pytest.approx((90 / 5 + 90) / 2)
    assert mtan["normals"]["median"].value == pytest.approx((0 + 90) / 2)
    assert mtan["normals"]["within_30"].value == pytest.approx((80 + 0) / 2)
    assert own["segmentation"]["mIoU"].value == 100 and math.isnan(mtan["segmentation"]["mIoU"].value)
    assert mtan["segmentation"]["pixel_accuracy"].value == 100


def test_mtan_depends_on_the_batch_size() -> None:
    found = [
        evaluate(Constant(Depth()), loader(size), "scenes", protocol="mtan")["depth"]["abs"].value for size in (1, 2, 3)
    ]
    assert found == pytest.approx([(0 + 1 + 3) / 3, (1 / 5 + 3) / 2, 7 / 7])


def test_one_record_per_image_survives_the_cut_to_the_length_of_the_data_set() -> None:
    metric = DenseMetric({"depth": Depth()}, "mtan")
    for batch in loader(2):
        metric.process(batch, Constant(Depth())(batch["image"], "predict"))
    assert len(metric.results) == 3
    assert metric.evaluate(3)["depth/abs"] == pytest.approx((1 / 5 + 3) / 2)


def test_the_protocol_can_stand_in_a_configuration() -> None:
    evaluator = Evaluator([{"type": DenseMetric, "tasks": {"depth": {"type": "depth"}}, "protocol": "mtan"}])
    evaluator.process([{"depth": torch.ones(1, 2, 2)}], {"depth": torch.full((1, 1, 2, 2), 2.0)})
    assert evaluator.evaluate(1)["depth/rel"] == 0.5


def test_an_absent_class_is_printed_with_its_consequence(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(Constant(Segmentation(2, ["here", "away"])), loader(2), "scenes", protocol="mtan")
    assert "segmentation: mIoU is NaN by the published rule: neither truth nor prediction has away\n" in (
        capsys.readouterr().out
    )


def test_what_the_protocol_does_not_cover_is_refused_before_anything_runs() -> None:
    model = Constant(Depth(), Edges())
    with pytest.raises(ValueError, match="task 'edges' has no convention under protocol 'mtan'"):
        evaluate(model, loader(2), "scenes", protocol="mtan")
    with pytest.raises(ValueError, match=r"unknown evaluation protocol 'mtam'.*Did you mean 'mtan'"):
        evaluate(model, loader(2), "scenes", protocol="mtam")
    assert not model.called


@pytest.mark.parametrize("protocol", ["mtan", "libmtl", "auto-lambda"])
def test_the_published_tasks_are_covered(protocol: str) -> None:
    covered = set()
    for name in TASKS:
        try:
            measure(TASKS[name](), protocol)
        except ValueError as error:
            assert repr(name) in str(error)
        else:
            covered.add(name)
    published = tuple(TASKS[name] for name in ("segmentation", "depth", "normals", "inverse_depth"))
    assert covered == {name for name in TASKS if issubclass(TASKS[name], published)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_measure_says_of_itself_holds(protocol: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for task in (Segmentation(3), Depth(), Normals()):
        found = measure(task, protocol)
        output = torch.rand(3, task.channels, 6, 8, generator=generator)
        target = task.self_label(torch.rand(3, task.channels, 6, 8, generator=generator), soft=False)
        rows = found.statistics(output, target)
        assert rows.dtype == torch.float64 and rows.ndim == 2 and len(rows) == 3
        summary = found.summarize(rows.sum(0))
        assert [(name, metric.higher_is_better) for name, metric in summary.items()] == list(found.metrics.items())
        assert all(math.isfinite(metric.value) for metric in summary.values())
        assert task.headline in found.metrics, "Delta_m needs it"
        assert found.remarks(rows.sum(0)) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_columns_reach_the_scores(protocol: str) -> None:
    model = Constant(Depth(), Normals(), Segmentation(2))
    scores = evaluate(model, loader(2), "scenes", protocol=protocol)
    depth = ["abs", "rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3"]
    expected = {
        "auto-lambda": [["abs"], ["mean"], ["mIoU"]],
        "eigen": [depth, list(Normals.metrics), list(Segmentation.metrics)],
    }
    full = [list(task.metrics) for task in model.tasks.values()]
    assert [list(metrics) for metrics in scores.values()] == expected.get(protocol, full)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_forty_classes_in_every_protocol(protocol: str, batch_size: int) -> None:
    """Every class occurs; classes 0..38 are right in two of three pixels, 39 in all: batches do not matter."""
    task, labels = Segmentation(classes=40), torch.arange(120).remainder(40).view(3, 1, 40)
    predicted = labels.clone()
    predicted[0, 0, :39], predicted[1:, 0, :39] = 39, labels[1:, 0, :39]
    output = torch.nn.functional.one_hot(predicted, 40).movedim(-1, 1).float()
    found = measure(task, protocol)
    batches = zip(output.split(batch_size), labels.split(batch_size), strict=True)
    summary = found.summarize(torch.cat([found.statistics(*batch) for batch in batches]).sum(0))
    assert summary["mIoU"].value == pytest.approx(100 * (39 * 2 / 3 + 3 / 42) / 40)
    assert protocol == "auto-lambda" or summary["pixel_accuracy"].value == pytest.approx(100 * 81 / 120)


def test_a_config_with_another_protocol_or_task_is_refused_before_anything_is_built() -> None:
    check_protocol("auto-lambda", {"depth": {}, "segmentation": {"classes": 40}})
    check_protocol("eigen", {"edges": {}})
    for protocol, words in (
        ("mtam", "unknown evaluation protocol 'mtam'"),
        ("", "unknown"),
        (["mtan"], "unknown"),
        (None, "unknown"),
        ("libmtl", "task 'edges' has no convention under protocol 'libmtl'"),
    ):
        with pytest.raises(ValueError, match=rf"evaluation\.protocol: .*{words}"):
            check_protocol(protocol, {"edges": {"type": "edges"}})


# -- in MMEngine's evaluator ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("collate", [pseudo_collate, default_collate])
@pytest.mark.parametrize("protocol", ["default", "mtan"])
def test_lists_of_images_and_stacked_ones_give_what_evaluate_gives(collate: Any, protocol: str) -> None:
    model = Constant(Depth(), Normals(), Segmentation(2))
    metric = DenseMetric(protocol=protocol)
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {"classes": None, "tasks": model.tasks}
    for start in (0, 2):
        batch = collate(scenes()[start : start + 2])
        evaluator.process(model(batch["image"], "predict"), batch)
    assert [sorted(row) for row in metric.results] == [sorted(model.tasks)] * 3
    found = evaluator.evaluate(3)
    expected = {
        f"{task}/{name}": value.value
        for task, values in evaluate(model, loader(2), "scenes", protocol=protocol).items()
        for name, value in values.items()
    }
    assert found == pytest.approx(expected, nan_ok=True) and list(found) == list(expected)


def test_it_is_found_by_its_name_and_takes_the_tasks_of_the_data_set() -> None:
    with DefaultScope.overwrite_default_scope("symerge_dense"):
        evaluator = Evaluator({"type": "DenseMetric", "protocol": "eigen"})
    (metric,) = evaluator.metrics
    assert type(metric) is DenseMetric and metric.tasks == {}
    evaluator.dataset_meta = tiny.TinySet({"depth": {}, "segmentation": {"classes": 4}}).metainfo
    assert list(metric.tasks) == ["depth", "segmentation"] and "log10" in metric.measures["depth"].metrics
    given = DenseMetric({"normals": {}})
    given.dataset_meta = {"tasks": {"depth": Depth()}}
    assert list(given.tasks) == ["normals"]


def test_two_protocols_in_one_evaluator_are_told_apart_by_a_prefix() -> None:
    metrics = [DenseMetric({"depth": {}}), DenseMetric({"depth": {}}, "mtan", prefix="mtan")]
    evaluator, model = Evaluator(metrics), Constant(Depth())
    for batch in loader(2):
        evaluator.process(model(batch["image"], "predict"), batch)
    found = evaluator.evaluate(3)
    assert found["depth/abs"] == pytest.approx(1) and found["mtan/depth/abs"] == pytest.approx((1 / 5 + 3) / 2)


@pytest.mark.parametrize("metainfo", [None, {}, {"classes": None, "tasks": {}}])
def test_without_tasks_it_says_where_to_name_them(metainfo: Any) -> None:
    with pytest.raises(ValueError, match=r"list them in the data set's tasks, or give the metric tasks="):
        DenseMetric().dataset_meta = metainfo
    with pytest.raises(ValueError, match=r"list them in the data set's tasks"):
        DenseMetric().process({"depth": torch.ones(1, 1, 2, 2)}, [{"depth": torch.ones(1, 2, 2)}])
    with pytest.raises(ValueError, match=r"tasks=\['depth'\]"):
        DenseMetric(["depth"])  # type: ignore[arg-type]


def test_what_a_protocol_does_not_cover_is_refused_when_the_data_set_is_known() -> None:
    with pytest.raises(ValueError, match="task 'edges' has no convention under protocol 'mtan'"):
        DenseMetric(protocol="mtan").dataset_meta = {"tasks": {"edges": Edges()}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_name_of_a_metric_could_join_an_objective(protocol: str) -> None:
    """MMEngine adds up whatever a model returns under a key with 'loss' in it, and saves the smallest as the best."""
    for name in TASKS:
        task = TASKS[name]()
        if isinstance(task, PROTOCOLS[protocol].covers) or PROTOCOLS[protocol].others is not None:
            assert not [metric for metric in measure(task, protocol).metrics if "loss" in f"{name}/{metric}"]
