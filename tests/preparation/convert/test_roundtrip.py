"""One set of scenes in every packaging of NYUv2, converted: the same arrays come out, whatever they came in.

What a packaging cannot keep stands in ``LOSSES``; all else has to be exact.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from builders.nyu_mat_files import LABELS13, write_mat
from builders.nyu_other_files import BENCHMARK, write_astmt, write_nyud_mt, write_nyudv2, write_parquet
from builders.nyu_scene import scene

from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.preparation.convert.convert import convert
from symerge_dense.preparation.convert.packagings import open_split, settings_of
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

SPLITS = {"train": (0, 1), "val": (2,)}
EIGEN = (slice(45, 471), slice(41, 601))
WHOLE = (slice(0, 480), slice(0, 640))
PARTS = ("image", "label", "depth", "normal")


class Loss(NamedTuple):
    """How far a part may be off, in 0..1 for images and degrees for normals: mean, and for 99.9 % of the pixels."""

    mean: float
    most: float


EIGHT_BIT = Loss(0.35, 0.4)  # half a step of 2 / 255 in each of three channels: at most 0.39 degrees
JPEG_IMAGE = Loss(0.015, 0.2)  # quality 95; worst where pictures on the walls begin
JPEG_NORMAL = Loss(1.0, 30.0)  # 8 bits and JPEG: vectors on both sides of a corner run into each other
LOSSES = {  # packaging -> part -> what is lost in it; parts that are not named are exact
    "mat": {"normal": EIGHT_BIT},
    "mat tgz": {"normal": EIGHT_BIT},
    "nyud_mt": {"image": JPEG_IMAGE},
    "astmt": {"image": JPEG_IMAGE, "normal": JPEG_NORMAL},
    "nyudv2": {"normal": EIGHT_BIT},
}
PLACES = {"nyudv2": BENCHMARK}  # what the packaging's frames show of the whole ones
FRAMES = sorted(LOSSES)


def packaging(name):
    return {"mat tgz": "mat", "astmt": "nyud_mt"}.get(name, name)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("packagings")
    train, val = SPLITS["train"], SPLITS["val"]
    write_mat(root / "mat")
    write_mat(root / "mat tgz", normals="tgz")
    for name, write in (("nyud_mt", write_nyud_mt), ("astmt", write_astmt), ("nyudv2", write_nyudv2)):
        write(root / name, train=train, val=val)
    return root


@pytest.fixture(scope="module")
def converted(sources, tmp_path_factory):
    """``converted(name, **settings)``: folder of the converted packaging, made once per settings."""
    done = {}

    def folder(name, **settings):
        key = name, *sorted(settings.items())
        if key not in done:
            out = tmp_path_factory.mktemp("converted")
            chosen = settings_of(packaging(name), **settings)
            assert convert(packaging(name), sources / name, out, chosen) == len(PARTS) * 3
            done[key] = out
        return done[key]

    return folder


def load(folder, split, part, index):
    return np.load(folder / split / part / f"{index}.npy", allow_pickle=False)


frame = cache(scene)


def expected(number, place, classes=13):
    """What the layout has to hold of scene ``number``, from the scene itself, by plain indexing."""
    whole = frame(number)
    labels = np.array([-1, *(LABELS13[0].astype(int) - 1 if classes == 13 else range(40))])[whole.label40]
    found = {
        "image": whole.image / np.float32(255),
        "label": labels,
        "depth": whole.depth[..., None],
        "normal": whole.normal,
    }
    return {name: array[place].astype(np.float32) for name, array in found.items()}


def errors(part, found, truth):
    """Per pixel: degrees between normals, difference of images."""
    if part == "normal":
        return np.degrees(np.arccos(np.clip((found.astype(np.float64) * truth).sum(-1), -1, 1)))[truth.any(-1)]
    return np.abs(found - truth)


def compare(part, found, truth, loss):
    if loss is None:
        np.testing.assert_array_equal(found, truth)
        return
    assert (found.dtype, found.shape) == (truth.dtype, truth.shape)
    off = errors(part, found, truth)
    assert 0 < off.mean() < loss.mean and np.quantile(off, 0.999) < loss.most
    if part == "normal":
        length = np.linalg.norm(found, axis=-1)
        assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
        assert ((length > 0) == truth.any(-1)).mean() > 0.998  # JPEG frays the edge of what is known


# -- against the scenes, pixel by pixel -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("crop, classes", [("none", 13), ("eigen", 40)])
def test_whole_frames_keep_every_pixel(converted, name, crop, classes):
    if name in PLACES and crop == "eigen":
        crop = "none"  # cropped by its makers
    out = converted(name, size="native", crop=crop, classes=classes)
    place = EIGEN if crop == "eigen" else PLACES.get(name, WHOLE)
    for split, numbers in SPLITS.items():
        for index, number in enumerate(numbers):
            truth = expected(number, place, classes)
            for part in PARTS:
                compare(part, load(out, split, part, index), truth[part], LOSSES[name].get(part))


def test_every_class_that_the_scenes_have_arrives(converted):
    found = np.unique(load(converted("mat", size="native", crop="eigen", classes=40), "train", "label", 0))
    assert len(found) > 8 and found[0] == -1 and found[-1] > 13


# -- against each other, resized --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mat tgz", "nyud_mt", "astmt"])
def test_resized_packagings_agree(converted, name):
    """The official files are the measure: what neither packaging has lost is the same to the last bit."""
    ours, theirs = converted("mat"), converted(name)
    lost = set() if name == "mat tgz" else set(LOSSES["mat"]) | set(LOSSES[name])
    for split, numbers in SPLITS.items():
        for index in range(len(numbers)):
            for part in PARTS:
                pair = load(theirs, split, part, index), load(ours, split, part, index)
                assert pair[1].shape[:2] == (288, 384)
                if part in lost:
                    assert errors(part, *pair).mean() < 1.5
                else:
                    np.testing.assert_array_equal(*pair)


def test_parquet_of_the_converted_is_the_converted(converted, tmp_path):
    ours = converted("mat")
    rows = {
        split: [
            {
                "image": np.moveaxis(load(ours, split, "image", index), -1, 0),
                "segmentation": load(ours, split, "label", index).astype(np.int64),
                "depth": np.moveaxis(load(ours, split, "depth", index), -1, 0),
                "normal": np.moveaxis(load(ours, split, "normal", index), -1, 0),
            }
            for index in range(len(numbers))
        ]
        for split, numbers in SPLITS.items()
    }
    write_parquet(tmp_path / "parquet", rows, shards=1)
    convert("parquet", tmp_path / "parquet", tmp_path / "out", settings_of("parquet"))
    for path in sorted(ours.rglob("*.npy")):
        assert (tmp_path / "out" / path.relative_to(ours)).read_bytes() == path.read_bytes()


def test_normals_from_depth_need_no_stored_ones(converted):
    """Depth is exact in all packagings, so what follows from it is, too; and it is close to the scene's normals."""
    made = {name: converted(name, normals="depth") for name in ("mat", "nyud_mt", "astmt")}
    for index in range(2):
        found = {name: load(out, "train", "normal", index) for name, out in made.items()}
        np.testing.assert_array_equal(found["mat"], found["nyud_mt"])
        np.testing.assert_array_equal(found["mat"], found["astmt"])
        truth = load(converted("nyud_mt"), "train", "normal", index)
        both = truth.any(-1) & found["mat"].any(-1)
        off = errors("normal", np.where(both[..., None], found["mat"], 0), np.where(both[..., None], truth, 0))
        assert np.median(off) < 0.5 and both.mean() > 0.7


# -- training reads what was written -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FRAMES)
def test_the_layout_gives_what_the_packaging_gives(converted, sources, name):
    out, settings = converted(name), settings_of(packaging(name))
    for split in SPLITS:
        source = open_split(packaging(name), sources / name, split, settings)
        read = NYUv2(out, split, tasks={"segmentation": Segmentation(), "depth": Depth(), "normals": Normals()})
        assert len(read) == len(source) == len(SPLITS[split])
        for index in range(len(read)):
            np.testing.assert_array_equal(read.image(index), source.resized_image(index))
            for target in ("segmentation", "depth"):
                np.testing.assert_array_equal(read.target(index, target), source.resized_target(index, target))
            mixed, unit = source.resized_target(index, "normals"), read.target(index, "normals")
            length = np.linalg.norm(mixed, axis=-1, keepdims=True)
            np.testing.assert_allclose(unit, np.where(length >= 0.5, mixed / np.maximum(length, 0.5), 0), atol=1e-5)
