"""Corrupted images: same targets, same pixels for a seed, stronger with the severity, and errors with a remedy."""

import cv2
import numpy as np
import pytest
from builders.tiny import TinySet

from symerge_dense.datasets.corrupted import CORRUPTIONS, Corrupted
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.registry import DATASETS

TASKS = {"depth": {"type": "depth"}}


@pytest.fixture(autouse=True)
def tiny_set_by_name(monkeypatch):
    DATASETS.import_from_location()
    monkeypatch.setitem(DATASETS._module_dict, "TinySet", TinySet)


def corrupted(name="noise", severity=3, **more):
    return Corrupted({"type": "TinySet", "count": 3}, name, severity, **more)


def changed(name, severity, picture):
    images = np.asarray(picture, np.uint8)[None]
    return Corrupted({"type": "ImageList", "images": images}, name, severity).image(0).astype(float)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"none"}))
def test_a_corruption_changes_images_and_a_strong_one_more(name):
    image = cv2.resize(np.random.default_rng(0).uniform(30, 200, (56, 56, 3)).astype(np.float32), (224, 224))
    distances = [np.abs(changed(name, severity, image) - image).mean() for severity in range(1, 6)]
    assert 0.5 < distances[0] < max(distances)  # blocks may happen to fit the pattern of this image
    found = corrupted(name, 5).image(0)
    assert found.dtype == np.uint8 and found.shape == TinySet({}, count=3).image(0).shape


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_images_of_floats_are_those_of_whole_numbers(name, monkeypatch):
    """As NYUv2's arrays give them: float32 in 0..255, which albumentations would take for 0..1."""

    class Floats(TinySet):
        def image(self, index):
            return super().image(index).astype(np.float32)

    monkeypatch.setitem(DATASETS._module_dict, "Floats", Floats)
    found = Corrupted({"type": "Floats", "count": 3}, name, 3)
    assert np.array_equal(found.image(1), corrupted(name, 3).image(1)) and found.image(1).std() > 1


def test_no_corruption_is_the_image_itself():
    assert np.array_equal(corrupted("none", 5).image(1), TinySet({}, count=3).image(1))


def test_formulas_on_plain_pictures():
    grey = np.full((224, 224, 3), 100)
    assert np.allclose(changed("contrast", 3, grey), 100)
    assert np.allclose(changed("brightness", 2, grey), 151)
    assert np.allclose(changed("blur", 5, grey), 100)
    half = np.concatenate([grey[:112] * 0, grey[112:] * 2])
    assert np.allclose(changed("contrast", 1, half)[[0, -1], 0, 0], [60, 140])  # 0.4 of the way from the mean, 100
    assert changed("noise", 1, grey + 27).std() == pytest.approx(0.08 * 255, rel=0.03)
    blocks = changed("pixelate", 2, np.arange(224 * 224).reshape(224, 224, 1) % 251 * np.ones(3))
    assert np.array_equal(blocks[::2, ::2], blocks[1::2, 1::2])


def test_blur_grows_with_the_height_of_the_image():
    """One bright line: its width is the strength for 224 pixels, and half of it for 112."""
    widths = []
    for size in (224, 112):
        line = np.zeros((size, size, 3))
        line[:, size // 2] = 255
        found = changed("blur", 5, line)[size // 2, :, 0]
        where = np.arange(size) - size // 2
        widths.append(np.sqrt((found * where**2).sum() / found.sum()))
    assert widths == pytest.approx([6, 3], rel=0.15)


def test_targets_are_the_clean_ones_and_a_seed_fixes_every_pixel():
    found, clean = corrupted(tasks=TASKS), TinySet(TASKS, count=3)
    assert len(found) == 3 and np.array_equal(found[2]["depth"], clean[2]["depth"])
    assert np.array_equal(found[2]["image"], corrupted(tasks=TASKS)[2]["image"])
    assert not np.array_equal(found.image(0), corrupted(seed=1).image(0))
    assert found.serves == TinySet.serves and found.image_size(0) == clean.image_size(0)


def test_it_can_be_the_unlabelled_pool():
    spec = {"type": "Corrupted", "dataset": {"type": "TinySet", "tasks": {}, "count": 3}, "corruption": "blur"}
    pool = Unlabelled(spec)
    assert len(pool) == 3 and np.array_equal(pool.image(1).numpy().transpose(1, 2, 0), corrupted("blur").image(1))


@pytest.mark.parametrize(
    "how, message", [({"name": "noize"}, "Did you mean 'noise'"), ({"severity": 6}, r"1 \(weak\) to 5")]
)
def test_what_does_not_exist_is_named(how, message):
    with pytest.raises(ValueError, match=message):
        corrupted(**how)
