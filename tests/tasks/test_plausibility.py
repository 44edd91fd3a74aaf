"""Labels that cannot be true are refused by the task, whatever data set reads them."""

from __future__ import annotations

import numpy as np
import pytest
from builders.tiny import SIZE, TinySet

from symerge_dense.registry import TASKS
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.intrinsic import Albedo
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation


def unit_vectors(seed=0, size=SIZE):
    vectors = np.random.default_rng(seed).normal(size=(*size, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("factor", "refused"), [(1, False), (9.9, False), (1000, True), (100, True)], ids=["m", "far", "mm", "cm"]
)
def test_depth_in_another_unit(factor, refused):
    metres = np.random.default_rng(0).uniform(1, 10, SIZE).astype(np.float32)
    metres[:10] = 0
    metres[10, :5] = np.nan
    said = Depth().implausible(metres * np.float32(factor))
    assert (said is not None) == refused
    if refused:
        median = np.nanmedian((metres * factor)[10:])
        assert said.startswith(f"{median:.5g} m in the median, above 100 m") and "scale=1e-3" in said
        assert Depth(max_median=1e6).implausible(metres * np.float32(factor)) is None


def test_many_different_negative_depths_are_no_marker():
    metres = np.random.default_rng(0).uniform(1, 10, SIZE).astype(np.float32)
    assert Depth().implausible(np.where(metres > 5, np.float32(-1), metres)) is None  # one number may mean 'no label'
    assert Depth().implausible(np.full(SIZE, -1, np.float32)) is None
    few = metres.copy()
    few[0, :3] = -1, -0.4, -0.2
    assert Depth().implausible(few) is None
    said = Depth().implausible(-metres)
    assert "negative in 100% of its pixels" in said and "scale=-1" in said and "invalid=" in said
    assert "negative in" in Depth().implausible(np.where(metres > 5, -metres, metres))


def test_a_limit_must_be_positive():
    with pytest.raises(ValueError, match="max_median=0"):
        Depth(max_median=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n: n, None),
        (lambda n: n * 0.93, None),  # mixed from neighbours
        (lambda n: np.zeros_like(n), None),  # nothing is known
        (lambda n: (n + 1) / 2, "2 * value / 1 - 1"),
        (lambda n: ((n + 1) * 127.5).round(), r"2 \* value / 255 - 1 \(scale=2/255, offset=-1"),
        (lambda n: ((n + 1) * 32767.5).round(), "2 * value / 65535 - 1"),
        (lambda n: n * 127, "divide each by its length"),
    ],
)
def test_normals_that_are_no_unit_vectors(change, says):
    said = Normals().implausible(change(unit_vectors()).astype(np.float32))
    assert said is None if says is None else says.replace("\\", "") in said


@pytest.mark.parametrize("task", [Edges(), Albedo()])
def test_shares_must_be_in_0_to_1(task):
    def target(highest):
        values = np.linspace(0, highest, 48, dtype=np.float32).reshape(6, 8)
        values[0, 0] = task.invalid_value
        return values

    assert task.implausible(target(1)) is None
    said = task.implausible(target(128))
    assert "..128: values must be in 0..1" in said and "scale=1/255" in said
    assert "scale=1/65535" in task.implausible(target(60000))
    assert (task.implausible(target(-1)) is None) == (task.name == "albedo")  # there, a negative number is no label


def test_class_numbers():
    task, ids = Segmentation(classes=4), np.array([[0, 3], [255, 1]])
    assert task.implausible(ids) is None
    assert "with -1, 4: allowed are 0..3, and 255 for no label" in task.implausible(np.array([[4, -1, 255, 2]]))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_nothing_known_is_never_odd(name):
    task = TASKS[name]()
    shape = SIZE if task.class_map or task.channels == 1 else (*SIZE, task.channels)
    target = np.full(shape, task.invalid_value, np.int64 if task.class_map else np.float32)
    assert task.implausible(target) is None


class Millimetres(TinySet):
    def target(self, index, name):
        target = super().target(index, name)
        return target * 1000 if name == "depth" and index == 2 else target


def test_every_data_set_refuses_them_on_reading():
    data = Millimetres({"depth": {"type": "depth"}, "segmentation": {"type": "segmentation", "classes": 3}})
    with pytest.raises(ValueError, match=r"target 'depth' of image 2 is [0-9]+ m in the median.*scale=1e-3"):
        data.resized_target(2, "depth")
    with pytest.raises(ValueError, match="target 'segmentation' of image 0 is a class map with 3"):
        data[0]
    assert data.resized_target(1, "depth").max() <= 4
