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


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"none"}))
def test_a_corruption_changes_images_and_a_strong_one_more(name):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.uniform(30, 200, (56, 56, 3)).astype(np.float32), (224, 224))
    change, strengths = CORRUPTIONS[name]
    distances = [np.abs(change(image, strength, rng) - image).mean() for strength in strengths]
    assert 0.5 < distances[0] < max(distances)  # blocks may happen to fit the pattern of this image
    found = corrupted(name, 5).image(0)
    assert found.dtype == np.uint8 and found.shape == TinySet({}, count=3).image(0).shape


def test_no_corruption_is_the_image_itself():
    assert np.array_equal(corrupted("none", 5).image(1), TinySet({}, count=3).image(1))


def test_formulas_on_one_pixel_colours():
    grey = np.full((8, 8, 3), 100.0, np.float32)
    rng = np.random.default_rng(0)
    assert np.allclose(CORRUPTIONS["contrast"][0](grey, 0.2, rng), 100)
    assert np.allclose(CORRUPTIONS["brightness"][0](grey, 0.2, rng), 151)
    assert np.allclose(CORRUPTIONS["blur"][0](grey, 6.0, rng), 100)
    half = np.concatenate([grey[:4] * 0, grey[4:] * 2])
    assert np.allclose(CORRUPTIONS["contrast"][0](half, 0.5, rng)[[0, -1], 0, 0], [50, 150])
    assert CORRUPTIONS["noise"][0](np.zeros((200, 200, 3)), 0.1, rng).std() == pytest.approx(25.5, rel=0.02)
    blocks = CORRUPTIONS["pixelate"][0](np.arange(48, dtype=np.float32).reshape(4, 4, 3), 0.5, rng)
    assert np.array_equal(blocks[:2, :2], np.broadcast_to(blocks[0, 0], (2, 2, 3)))


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
