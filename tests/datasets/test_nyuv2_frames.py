"""What all packagings of whole NYUv2 frames share: classes, crop, edges, normals out of depth or out of pictures."""

from pathlib import Path

import numpy as np
import pytest
from builders.nyu_mat_files import LABELS13
from builders.nyu_scene import scene

from symerge_dense.datasets.nyuv2.frames import NYUFrames
from symerge_dense.datasets.nyuv2.normals import decode_normals
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.intrinsic import Albedo
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

EIGEN = (..., slice(45, 471), slice(41, 601))


class Frames(NYUFrames):
    """Arrays of a dict, as a packaging."""

    packaging = "memory"

    def __init__(self, arrays, window=None, **settings):
        super().__init__("nowhere", **settings)
        self.arrays, self.window = arrays, window

    @property
    def source_files(self):
        return [Path("nowhere")]

    def __len__(self):
        return 1

    def frame_of_crop(self):
        return self.window or super().frame_of_crop()

    def frame_image(self, index):
        return self.arrays["image"]

    def frame_labels(self, index):
        return self.arrays["labels"]

    def frame_depth(self, index):
        return self.arrays["depth"]

    def frame_normals(self, index):
        return self.arrays["normals"]


@pytest.fixture(scope="module")
def arrays():
    frame = scene(4)
    labels = np.where(frame.label40 > 0, frame.label40.astype(np.int64) - 1, 255)
    return {"image": frame.image, "labels": labels, "depth": frame.depth, "normals": frame.normal}


def rules(classes=13):
    return {"segmentation": Segmentation(classes), "edges": Edges(), "depth": Depth(), "normals": Normals()}


def test_the_40_classes_become_the_13(arrays):
    every = {**arrays, "labels": np.append(np.arange(40), 255).astype(np.uint8)[None]}
    fine, coarse = (Frames(every, tasks=rules(classes)) for classes in (40, 13))
    np.testing.assert_array_equal(fine.target(0, "segmentation"), every["labels"])
    np.testing.assert_array_equal(coarse.target(0, "segmentation")[0], [*(LABELS13[0] - 1), 255])
    assert len(fine.classes) == 40 and len(coarse.classes) == 13 and Frames(arrays).classes == coarse.classes


@pytest.mark.parametrize("wrong", [-1, 40, 254, 256, 1000])
def test_a_label_that_is_no_class_is_named(arrays, wrong):
    labels = arrays["labels"].copy()
    labels[100, 100] = wrong
    with pytest.raises(ValueError, match=rf"labels \[{wrong}\] in image 0 .*0\.\.39"):
        Frames({**arrays, "labels": labels}).target(0, "segmentation")


@pytest.mark.parametrize("normals", ["stored", "depth"])
def test_the_crop_cuts_everything_alike(arrays, normals):
    whole, cut = (Frames(arrays, tasks=rules(), crop=crop, normals=normals) for crop in ("none", "eigen"))
    first, second = whole[0], cut[0]
    for name in ("image", "segmentation", "depth"):
        np.testing.assert_array_equal(second[name], first[name][EIGEN])
    off = (first["normals"][EIGEN] - second["normals"]).norm(dim=0)
    assert tuple(second["edges"].shape) == (1, 426, 560)
    assert float((off > 1e-3).double().mean()) < (0.05 if normals == "depth" else 1e-9)  # windows end at the border


def test_size_follows_the_crop(arrays):
    sample = Frames(arrays, tasks=rules(), crop="eigen", size=(213, 280))[0]
    assert tuple(sample["image"].shape) == (3, 213, 280) and tuple(sample["segmentation"].shape) == (213, 280)
    blocks = arrays["image"][EIGEN[1:]].reshape(213, 2, 280, 2, 3).mean((1, 3))
    assert np.abs(sample["image"].numpy() - blocks.transpose(2, 0, 1)).max() <= 0.5


def test_edges_are_those_of_the_classes_asked_for(arrays):
    """A wall and a door are one class of 13."""
    labels = np.zeros((480, 640), np.int64)
    labels[:, 300:] = 7
    sums = {
        classes: float(Frames({**arrays, "labels": labels}, tasks=rules(classes)).target(0, "edges").sum())
        for classes in (13, 40)
    }
    assert sums == {13: 0, 40: 2 * 480}


def test_the_camera_follows_a_crop_made_by_others(arrays):
    window = (45, 470, 40, 600)
    rows, columns = slice(45, 470), slice(40, 600)
    cut = {name: array[rows, columns] for name, array in arrays.items()}
    found = Frames(cut, window, normals="depth").target(0, "normals")
    truth = arrays["normals"][rows, columns]
    off = np.degrees(np.arccos(np.clip((found * truth).sum(-1), -1, 1)))[found.any(-1) & truth.any(-1)]
    assert np.median(off) < 0.1


def test_the_crop_of_frames_of_another_size_is_refused(arrays):
    dataset = Frames({**arrays, "depth": np.ones((240, 320), np.float32)}, crop="eigen")
    with pytest.raises(ValueError, match=r"nowhere: crop='eigen' .*\(480, 640\).*\(240, 320\); use crop='none'"):
        dataset.target(0, "depth")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"split": "test"}, "split='test': Frames has 'train' and 'val'"),
        ({"crop": "mtan"}, "crop='mtan'.*'none'"),
        ({"normals": "ladicky"}, "normals='ladicky'.*'stored' and 'depth'"),
        ({"tasks": {"segmentation": Segmentation(19)}}, "has 19 classes: NYUv2 has 13 or 40"),
        ({"tasks": {"albedo": Albedo()}}, "Frames: unknown target 'albedo'"),
        ({"size": (0, 4)}, "size="),
    ],
)
def test_bad_settings(arrays, settings, message):
    with pytest.raises(ValueError, match=message):
        Frames(arrays, **settings)


# -- pictures of normals ----------------------------------------------------------------------------------------------
def test_pictures_decode_to_unit_vectors():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    mask = np.random.default_rng(1).integers(0, 3, (20, 30))
    image[3, :5], image[4, 4], image[5, 5], mask[3, :5], mask[5, 5] = 127, (128, 0, 128), 255, 1, 1
    found = decode_normals(image, mask)
    assert found.dtype == np.float32
    for row in range(20):
        for column in range(30):
            vector = 2 * image[row, column].astype(np.float64) / 255 - 1
            length = np.linalg.norm(vector)
            expected = vector / length if mask[row, column] and 0.5 <= length <= 1.2 else np.zeros(3)
            np.testing.assert_allclose(found[row, column], expected, atol=1e-6)
    assert not found[3, :5].any() and not found[5, 5].any()  # grey, and the white around some masks
    np.testing.assert_allclose(decode_normals(image)[4, 4], [0, -1, 0], atol=0.01)  # purple: a wall that faces us


@pytest.mark.parametrize(
    "image, mask, message",
    [
        (np.zeros((4, 4), np.uint8), None, "8-bit RGB"),
        (np.zeros((4, 4, 4), np.uint8), None, "8-bit RGB"),
        (np.zeros((4, 4, 3), np.uint16), None, "uint16"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 5)), "the mask"),
    ],
)
def test_what_is_no_picture_of_normals_is_refused(image, mask, message):
    with pytest.raises(ValueError, match=message):
        decode_normals(image, mask)


def test_the_task_and_the_pictures_agree_on_what_is_valid(arrays):
    """The zero vector and nothing else is invalid to the task."""
    target = Frames(arrays, tasks=rules())[0]["normals"]
    np.testing.assert_array_equal(Normals().valid(target[None])[0], arrays["normals"].any(-1))
