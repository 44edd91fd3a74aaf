"""Tasks of one's own that an option cannot work with, and a teacher that cannot be asked: known before any training."""

import pytest
from builders import tiny
from builders.pipeline_tiny import write_config

from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.comparison.run import compare_methods
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.train import train
from symerge_dense.registry import TASKS
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.segmentation import Segmentation

VIEWS = {"adaptation.views": {"flip": True, "_delete_": True}}


class Counts(Depth):
    """Depth under another name, whose views have no average, and whose loss takes no weights."""

    name, source = "counts", "depth"

    def average(self, outputs, weights=None):
        raise ValueError("counts are not averaged.")

    def loss(self, output, target, valid=None):
        return super().loss(output, target, valid)


class Parts(Segmentation):
    """Segmentation whose loss takes no weights."""

    name, source = "parts", "segmentation"

    def loss(self, output, target, valid=None):
        return super().loss(output, target, valid)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture
def told(tmp_path, rooms, monkeypatch):
    """The message that a run of some tasks and options ends with; nothing was trained or labelled."""
    for kind in (Counts, Parts):
        monkeypatch.setitem(TASKS.module_dict, kind.name, kind)
    path = write_config(tmp_path, rooms=rooms)

    def run(task, work=train, **changes):
        own = {"tasks": {task: {"type": task}, "_delete_": True}} if task else {}
        with pytest.raises(ValueError) as error:
            work(load_config(path, {**own, **changes}), work_dir=str(tmp_path / "run"))
        assert not list(tmp_path.rglob("*.npy")) and not (tmp_path / "experts").exists()
        return str(error.value)

    return run


def test_a_task_without_an_average_of_views(told):
    message = told("counts", **VIEWS)
    assert "task 'counts' (Counts) has no average of several views: counts are not averaged." in message
    assert "views=None" in message and "images of" not in message


@pytest.mark.parametrize(
    ("task", "changes", "option"),
    [
        ("parts", {}, "class_balance=0.5: the loss of task 'parts' (Parts) takes no weights"),
        (
            "parts",
            {"adaptation.class_balance": 0.0, "adaptation.uncertainty": "filter"},
            "uncertainty='filter': the loss",
        ),
    ],
)
def test_a_loss_without_weights(told, task, changes, option):
    message = told(task, **{**VIEWS, **changes})
    assert option in message and "give `loss` the argument `weight`, or set" in message


def test_a_teacher_that_pads_images_otherwise(told, tmp_path):
    network = tiny.backbone({**tiny.VIT, "img_size": (35, 49), "patch_size": 7})
    model = MultiTaskModel(
        network, {"depth": {"type": MultiScale, "width": 8}}, {"depth": {"type": "depth"}}, **tiny.PREPROCESSING
    )
    save_model(tmp_path / "teacher.safetensors", model)
    teacher = {"type": "model", "checkpoint": str(tmp_path / "teacher.safetensors")}
    wanted = "pads images of (32, 48) to (35, 49), the merged model to (32, 48); choose a size that both take"
    assert wanted in told(None, **{"adaptation.teacher": teacher})
    rows = {"own teacher": {"method": "symerge", "teacher": teacher}}
    changes = {"baselines.variants": rows, "baselines.methods": ["own teacher"]}
    assert wanted in told(None, compare_methods, **changes)
