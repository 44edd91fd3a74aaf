"""Evaluation of a small model on a small data set, against statistics taken in one go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.evaluator import Evaluator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.evaluation.metric import DenseMetric
from symerge_dense.progress import silent
from symerge_dense.tasks.base import DenseTask
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation


class Scenes(Dataset[dict[str, Any]]):
    """Seven noise images with segmentation (4 classes) and depth."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = 255 * torch.rand(7, 3, 6, 8, generator=generator)
        self.segmentation = torch.randint(0, 3, (7, 6, 8), generator=generator)
        self.segmentation[:, 0] = 255
        self.depth = 5 * torch.rand(7, 1, 6, 8, generator=generator)
        self.depth[2] = 0

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self.image[index],
            "segmentation": self.segmentation[index],
            "depth": self.depth[index],
            "index": index,
        }


class Model(nn.Module):
    """A 1x1 convolution per task behind dropout, which only evaluation mode silences."""

    def __init__(self, *tasks: DenseTask) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tasks = {task.name: task for task in tasks}
        self.drop, self.frozen = nn.Dropout(0.5), nn.BatchNorm2d(3).eval()
        self.heads = nn.ModuleDict({task.name: nn.Conv2d(3, task.channels, 1) for task in tasks})

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        features = self.drop(self.frozen(image / 255))
        return {name: head(features) for name, head in self.heads.items()}

    def forward(self, image: Tensor, mode: str = "tensor") -> list[dict[str, Tensor]]:
        assert mode == "predict" and not torch.is_grad_enabled()
        outputs = self.outputs(image)
        return [{name: output[i] for name, output in outputs.items()} for i in range(len(image))]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_scores_equal_statistics_in_one_go_whatever_the_batch_size(batch_size: int) -> None:
    data, model = Scenes(), Model(Segmentation(4), Depth())
    scores = evaluate(model, DataLoader(data, batch_size), "scenes")
    with torch.no_grad():
        outputs = model.eval().outputs(data.image)
    for name, truth in (("segmentation", data.segmentation), ("depth", data.depth)):
        task = model.tasks[name]
        expected = task.summarize(task.statistics(outputs[name], truth).sum(0))
        assert list(scores[name]) == list(task.metrics)
        for metric, value in expected.items():
            assert scores[name][metric].value == pytest.approx(value.value, rel=1e-6)
            assert scores[name][metric].higher_is_better == value.higher_is_better


def test_every_part_gets_its_mode_back_even_after_an_error() -> None:
    model = Model(Depth()).train()
    model.frozen.eval()
    evaluate(model, DataLoader(Scenes(), 4), "scenes")
    assert model.training and model.drop.training and not model.frozen.training
    broken = Model(Normals()).train()
    with pytest.raises(ValueError):
        evaluate(broken, DataLoader(Scenes(), 4), "scenes")
    assert broken.training and broken.drop.training


def test_a_missing_target_names_the_task_and_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'normals'.*it serves depth, segmentation; evaluate"):
        evaluate(Model(Normals(), Depth()), DataLoader(Scenes(), 4), "scenes")


def test_a_metric_keeps_one_small_record_per_image_and_prints_absent_classes_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, task = Scenes(), Segmentation(100, class_names=[f"[{index}] :bed:" for index in range(100)])
    samples = [{"segmentation": torch.randn(100, 6, 8)} for _ in range(7)]
    absent = set(range(100)) - set(data.segmentation.unique().tolist())
    for sample, truth in zip(samples, data.segmentation, strict=True):
        absent -= set(sample["segmentation"].argmax(0)[truth != 255].tolist())
    names = ", ".join(f"[{index}] :bed:" for index in sorted(absent))
    assert absent
    expected = f"segmentation: mIoU leaves out what neither truth nor prediction has: {names}\n"
    for quiet, printed in ((True, ""), (False, expected), (False, "")):  # the last: a second model, the same remark
        metric = DenseMetric({"segmentation": task})
        metric.process({"segmentation": data.segmentation}, samples)
        assert len(metric.results) == 7 and all(row["segmentation"].values().numel() <= 40 for row in metric.results)
        with silent(quiet):
            values = metric.evaluate(7)
        assert set(values) == {"segmentation/mIoU", "segmentation/pixel_accuracy"} and metric.results == []
        assert capsys.readouterr().out == printed


def test_padding_images_are_cut_off() -> None:
    data, metric = Scenes(), DenseMetric({"depth": Depth()})
    outputs = torch.rand(7, 1, 6, 8)
    for index in [*range(7), 0]:  # a sampler pads with the first image
        metric.process({"depth": data.depth[index : index + 1]}, [{"depth": outputs[index]}])
    expected = Depth().summarize(Depth().statistics(outputs, data.depth).sum(0))
    assert metric.evaluate(7)["depth/abs"] == pytest.approx(expected["abs"].value)


@pytest.mark.parametrize("spec", [Depth(), {"type": Depth}, {"type": "depth"}, {}])
def test_a_task_may_be_named(spec: Any) -> None:
    metric = DenseMetric({"depth": spec})
    Evaluator([metric]).process([{"depth": torch.ones(1, 2, 2)}], {"depth": torch.full((1, 1, 2, 2), 2.0)})
    assert metric.evaluate(1) == pytest.approx({"depth/abs": 1, "depth/rel": 0.5, "depth/rmse": 1, "depth/delta1": 0})


def test_misuse_is_explained() -> None:
    metric = DenseMetric({"depth": {}})
    truth = {"depth": torch.ones(1, 1, 4, 4)}
    for batch, sample, words in [
        (truth, {"normals": torch.ones(3, 4, 4)}, "gives no output.*normals"),
        (truth, {"depth": torch.ones(1, 2, 2)}, "does not fit output"),
        (truth, {"depth": torch.ones(3, 4, 4)}, "channels=1"),
        ({"index": torch.zeros(1)}, {"depth": torch.ones(1, 4, 4)}, "it serves nothing"),
    ]:
        with pytest.raises(ValueError, match=words):
            metric.process(batch, [sample])
    with pytest.raises(ValueError, match="no image was evaluated"):
        metric.evaluate(0)
