"""Every contract of a data set finds the fault that it is there for."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.image_files import read_image
from symerge_dense.testing import datasets
from symerge_dense.testing.contract import Skipped, promise, run_checks

COUNTER = itertools.count()


class Photos(DenseDataset):
    """root/0.png with root/0_depth.png, in millimetres."""

    serves = frozenset({"depth", "unheard_of"})

    def __init__(self, root, **options):
        super().__init__(**options)
        self.files = sorted(Path(root).glob("?.png"))

    def __len__(self):
        return len(self.files)

    def image(self, index):
        return read_image(self.files[index])

    def target(self, index, name):
        path = self.files[index].with_name(f"{self.files[index].stem}_depth.png")
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise ValueError(f"{path} is no picture.")
        return stored.astype(np.float32) / 1000


class Empty(Photos):
    def __len__(self):
        return 0


class UnitImages(Photos):
    def image(self, index):
        return super().image(index).astype(np.float32) / 255


class WholeNumbers(Photos):
    def target(self, index, name):
        return (1000 * super().target(index, name)).astype(np.uint16)


class OtherMark(Photos):
    def target(self, index, name):
        depth = super().target(index, name)
        return np.where(depth == 0, np.float32(-9), depth)


class Unlabelled(Photos):
    def target(self, index, name):
        return 0 * super().target(index, name)


class ManyClasses(Photos):
    """Ids of 40 classes, where the names say four."""

    serves = frozenset({"segmentation"})
    classes = ("wall", "floor", "box", "ball")

    def target(self, index, name):
        return (super().target(index, name) * 10).astype(np.int64)


class Jittered(Photos):
    def image(self, index):
        return super().image(index) // (1 + next(COUNTER) % 2)


class HoldsAFile(Photos):
    def __init__(self, root, **options):
        super().__init__(root, **options)
        self.handle = io.BytesIO().getbuffer()  # as an open file, it cannot be copied


class Nameless(Photos):
    """OpenCV gives None for what it cannot read, and a puzzle for what is done with it."""

    def image(self, index):
        return cv2.cvtColor(cv2.imread(str(self.files[index])), cv2.COLOR_BGR2RGB)


class Silent(Photos):
    def image(self, index):
        found = cv2.imread(str(self.files[index]))
        return np.zeros((8, 12, 3), np.uint8) if found is None else found

    def target(self, index, name):
        return np.ones((8, 12), np.float32)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (8, 12, 3), dtype=np.uint8))
        depth = rng.integers(500, 5000, (8, 12)).astype(np.uint16)
        depth[:2] = 0
        cv2.imwrite(str(tmp_path / f"{number}_depth.png"), depth)
    return tmp_path


def test_a_right_data_set_passes_and_is_tested_with_the_tasks_that_are_known(photos):
    opened = datasets.OpenedDataset(Photos, {"root": photos})
    assert list(opened.tasks) == ["depth"] and opened.looked_at == [0, 1, 3, 4]
    outcomes = run_checks(datasets.DATASET_CHECKS, opened)
    assert [outcome for outcome in outcomes if outcome.kept is not True] == []


@pytest.mark.parametrize(
    ("check", "faulty", "told"),
    [
        (datasets.check_length, Empty, "which folder or pattern finds none"),
        (datasets.check_images, UnitImages, "multiply by 255"),
        (datasets.check_targets, OtherMark, r"has values \[-9.0, .*write 0, invalid_value"),
        (datasets.check_targets, Unlabelled, "no pixel of 'depth' has a label"),
        (datasets.check_reading_again, Jittered, "draw nothing at random"),
        (datasets.check_errors_name_the_file, Nameless, "names none.*read_image"),
        (datasets.check_errors_name_the_file, Silent, "read without an error"),
    ],
)
def test_faults_of_data_sets(check, faulty, told, photos):
    with pytest.raises(AssertionError, match=told):
        check(datasets.OpenedDataset(faulty, {"root": photos}))


@pytest.mark.parametrize(
    ("check", "faulty", "told"),
    [
        (datasets.check_targets, WholeNumbers, r"ValueError: .*uint16.*return float32 \(H, W\)"),
        (datasets.check_targets, ManyClasses, "ValueError: .*class map with .*: allowed are 0..3"),
        (datasets.check_workers, HoldsAFile, "cannot pickle.*open files where they are read"),
    ],
)
def test_faults_that_raise_are_told(check, faulty, told, photos):
    (outcome,) = run_checks([check], datasets.OpenedDataset(faulty, {"root": photos}))
    assert outcome.kept is False
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(outcome.reason)


def test_what_cannot_be_checked_is_not_called_kept(photos):
    class NoTask(Photos):
        serves = frozenset({"unheard_of"})

    with pytest.raises(Skipped, match=r"no task is registered under a name that it serves \(unheard_of\)"):
        datasets.check_targets(datasets.OpenedDataset(NoTask, {"root": photos}))
    moved = shutil.copytree(photos, photos.parent / "other")
    opened = datasets.OpenedDataset(Photos, {"root": moved})
    opened.options["root"] = None
    with pytest.raises(Skipped, match="no argument `root`"):
        datasets.check_errors_name_the_file(opened)


def test_every_contract_has_a_planted_fault_and_a_promise_of_its_own():
    tests = (test_faults_of_data_sets, test_faults_that_raise_are_told)
    rows = [mark.args[1] for test in tests for mark in test.pytestmark]
    assert {check for found in rows for check, _, _ in found} == set(datasets.DATASET_CHECKS)
    promises = [promise(check) for check in datasets.DATASET_CHECKS]
    assert len(set(promises)) == len(promises) and all(25 < len(text) < 120 for text in promises)
