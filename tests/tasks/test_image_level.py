"""Tasks of the whole image: labels by hand, heads that pool, and what has no label of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.tiny import CNN, PREPROCESSING

from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.rooms.gbuffer import POSE
from symerge_dense.datasets.rooms.labels import light_source, object_count
from symerge_dense.datasets.transforms import Augment
from symerge_dense.inference.predictor import Predictor
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.tasks.image_level import RoomType

WHOLE = ("room_type", "object_count", "light_source")


def model(task: str, head: str) -> MultiTaskModel:
    heads = {task: {"type": head}, "depth": {"type": "Linear"}}
    tasks = {task: {"type": task}, "depth": {"type": "depth"}}
    return MultiTaskModel(CNN, heads, tasks, **PREPROCESSING)


def test_a_bed_in_sight_makes_a_bedroom() -> None:
    bed, sofa, wall = (NYU13.index(name) for name in ("bed", "sofa", "wall"))
    labels = np.full((10, 20), wall)
    assert (RoomType().derive(labels) == 2).all()
    labels[0, 0] = sofa
    assert (RoomType().derive(labels) == 1).all()
    labels[0, 1] = bed
    assert (RoomType().derive(labels) == 0).all() and RoomType().derive(labels).shape == (10, 20)
    assert (RoomType().derive(np.full((2, 2), 255)) == 255).all()


def test_things_are_counted_and_the_rooms_faces_are_not() -> None:
    things = np.zeros((40, 50), np.uint8)
    things[0, :5], things[1, :2], things[2, 0], things[20:] = 6, 9, 11, 2
    assert (object_count(things) == 2).all(), "one of 2000 pixels is too small"


def test_the_lamp_lies_where_it_lies() -> None:
    pose = np.zeros(POSE, np.float32)
    pose[3:12], pose[15:] = np.eye(3).ravel(), (0, 3, 4)  # above and ahead
    direction = light_source(np.ones((2, 3), np.float32), pose)
    np.testing.assert_allclose(direction, np.broadcast_to([0, 0.8, 0.6], (2, 3, 3)), atol=1e-6)


def test_the_head_gives_one_value_and_a_prediction_is_the_same_everywhere() -> None:
    network = model("room_type", "Pooled").eval()
    image = torch.rand(1, 3, 32, 48) * 255
    assert network(image)["room_type"].shape == (1, 3, 1, 1)
    whole = network(image, mode="predict")[0]["room_type"]
    assert whole.shape == (3, 32, 48) and torch.allclose(whole, whole[:, :1, :1].expand_as(whole))


@pytest.mark.parametrize("task", WHOLE)
def test_a_head_that_gives_a_map_is_refused(task: str) -> None:
    with pytest.raises(ValueError, match=rf"{task}' is one of the whole image.*dict\({task}=dict\(type='Pooled'"):
        model(task, "MultiScale")
    with pytest.raises(ValueError, match=r"task 'normals' is dense, and head 'Pooled'.*type='MultiScale'"):
        model("normals", "Pooled")


def test_parts_of_images_have_no_label_of_the_whole() -> None:
    network = model("room_type", "Pooled").eval()
    with pytest.raises(ValueError, match=r"cutmix=0.5 mixes parts of images, and room_type has one label"):
        make_options(cutmix=0.5).check_tasks(network.tasks)
    with pytest.raises(ValueError, match=r"room_type is a task of the whole image.*tasks=\['depth'\]"):
        Predictor(network, device="cpu", tile=32)


def test_labels_of_the_whole_image_are_moved_like_dense_ones() -> None:
    """An expert's label (1,1,C) beside a dense one: mirrored by the strong view, and valid where all of it is seen."""
    network = model("light_source", "Pooled")
    arrays = {
        "image": np.zeros((32, 48, 3), np.float32),
        "light_source": np.array([[[0.6, 0.8, 0.0]]], np.float32),
        "depth": np.ones((8, 12, 1), np.float32),
    }
    views = StrongViews([{"type": "HorizontalFlip", "p": 1.0}], (32, 48))
    moved, valid = views(arrays, network.tasks, (0, 0, 0))
    np.testing.assert_allclose(moved["light_source"], [[[-0.6, 0.8, 0.0]]], atol=1e-6)
    assert valid["light_source"].shape == (1, 1) and valid["light_source"].all()


@pytest.mark.parametrize(
    ("task", "label", "mirrored"), [("light_source", [0.6, 0.8, 0], [-0.6, 0.8, 0]), ("object_count", [3], [3])]
)
def test_labels_of_the_whole_image_are_mirrored_with_the_image(
    task: str, label: list[float], mirrored: list[float]
) -> None:
    arrays = {"image": np.zeros((32, 48, 3), np.float32), task: np.array([[label]], np.float32)}
    augment = Augment(flip=1.0)
    moved = augment.apply(arrays, model(task, "Pooled").tasks, augment.draw(np.random.default_rng(0)))
    found = torch.from_numpy(moved[task])  # refuses the negative stride that a mirrored single column may keep
    np.testing.assert_allclose(found[0, 0], mirrored, atol=1e-6)
