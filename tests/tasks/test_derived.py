"""Tasks whose labels are made from those of others, and tasks of fixed classes: by hand on a few pixels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from symerge_dense.datasets.class_names import NYU13
from symerge_dense.models.task_specs import build_task, task_spec
from symerge_dense.registry import TASKS
from symerge_dense.tasks.boundary_distance import BoundaryDistance
from symerge_dense.tasks.depth_order import DepthOrder
from symerge_dense.tasks.directions import VanishingDirection
from symerge_dense.tasks.edges import SemanticEdges
from symerge_dense.tasks.surface_classes import Layout, Orientation


def test_semantic_edges_are_those_between_known_classes() -> None:
    labels = np.array([[3, 3, 5, 5, 255, 4]])
    assert SemanticEdges().derive(labels).tolist() == [[0, 1, 1, 0, 255, 0]]


def test_depth_order_counts_known_pixels_alone_and_no_unit_matters() -> None:
    depth = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 0.0, np.nan]], np.float32)
    expected = [[0, 1, 2, 3, 4, 255, 255]]
    assert DepthOrder().derive(depth).tolist() == expected == DepthOrder().derive(1000 * depth).tolist()
    assert DepthOrder().derive(0 * depth).tolist() == [[255] * 7]


def test_steps_are_classes_between_prediction_and_truth() -> None:
    task = DepthOrder()
    truth = torch.tensor([[[0, 1, 4, 255]]])
    output = torch.nn.functional.one_hot(torch.tensor([[[0, 3, 2, 0]]]), 5).permute(0, 3, 1, 2).float()
    found = task.summarize(task.statistics(output, truth).sum(0))
    assert found["steps"].value == pytest.approx((0 + 2 + 2) / 3) and not found["steps"].higher_is_better
    assert found["pixel_accuracy"].value == pytest.approx(100 / 3)


def test_distances_are_percent_of_the_width_and_unknown_behind_unknown_pixels() -> None:
    edges = np.zeros((1, 10), np.float32)
    edges[0, 2], edges[0, 9] = 1, 255
    expected = [20, 10, 0, 10, 20, 30, -1, -1, -1, -1]  # the seventh pixel is 3 from what is not known, 4 from the edge
    assert BoundaryDistance().derive(edges).tolist() == [expected]
    assert (BoundaryDistance().derive(0 * edges) == -1).all(), "no edge at all"


@pytest.mark.parametrize("task", [Orientation(), Layout()])
def test_a_mirror_exchanges_left_and_right(task: Orientation | Layout) -> None:
    names = [name.replace(" wall", "") for name in task.class_names]
    left, right = names.index("left"), names.index("right")
    turned = task.flip(np.array([[left, right, 5, 255]], np.int64))
    assert turned.tolist() == [[right, left, 5, 255]]
    labels = np.arange(6, dtype=np.float16).reshape(1, 1, 6)  # of an expert: a number per class
    assert task.flip(labels)[0, 0, left] == right and task.flip(task.flip(labels)).tolist() == labels.tolist()
    output = torch.arange(6.0).view(1, 6, 1, 1)
    assert task.mirror_output(output)[0, left, 0, 0] == right


def test_angles_of_directions_by_hand() -> None:
    task = VanishingDirection()
    output = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]).view(1, 2, 1, 3)
    truth = torch.tensor([[1.0, 1.0, float("nan")], [0.0, 0.0, 0.0]]).view(1, 2, 1, 3)
    assert task.summarize(task.statistics(output, truth).sum(0))["mean"].value == pytest.approx((0 + 90) / 2)
    assert float(task.loss(output, truth)) == pytest.approx(0.5)


def test_a_mask_is_one_class_of_its_source() -> None:
    task = TASKS["segmentation_bed"]()
    labels = np.array([[NYU13.index("bed"), 5, 255]])
    assert (task.source, task.derive(labels).tolist()) == ("segmentation", [[1, 0, -1]])
    assert TASKS["orientation_up"]().derive(labels).tolist() == [[1, 0, -1]]
    assert pickle.loads(pickle.dumps(task)).name == "segmentation_bed"
    assert task_spec(task, task) == {"type": "segmentation_bed", "positive_weight": 1.0, "names": None}


def test_a_mask_of_other_classes_takes_their_names_and_says_when_they_are_missing() -> None:
    with pytest.raises(ValueError, match=r"knows 13 classes, and segmentation has class 39; give those of all"):
        TASKS["segmentation_bed"]().derive(np.array([[39]]))
    with pytest.raises(ValueError, match=r"task 'segmentation_bed': unknown class 'bed'.*Known: road, sky"):
        build_task("segmentation_bed", {"names": ["road", "sky"]})
    task = TASKS["segmentation_bed"](names=["wall", "bed"])
    assert task.derive(np.array([[1, 0]])).tolist() == [[1, 0]]


def test_what_a_mirror_exchanges_has_no_mask() -> None:
    assert not {"orientation_left", "layout_right_wall"} & set(TASKS) and "layout_floor" in TASKS
