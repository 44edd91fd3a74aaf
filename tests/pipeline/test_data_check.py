"""`symerge check`: every fault of any data set of a config in one report, and a sheet to look at."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from builders.photos import cut_off, labels, write_labelled_photos, write_photos, write_rotated
from builders.pipeline_tiny import tool, write_config
from builders.tiny import TinySet, tasks

from symerge_dense.datasets.image_folder import ImageFolder
from symerge_dense.datasets.image_list import ImageList
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data import dataset
from symerge_dense.pipeline.data_check import check
from symerge_dense.pipeline.run_checks import check_labelled
from symerge_dense.preparation.check.data_sets import check_data_sets

OWN = """
def photos(**more):
    return dict(type="FolderDataset", root=ROOT, images="photos/*.jpg",
                targets=dict(segmentation="masks/{}.png", depth=dict(path="depth/{}.png", scale=1e-3)), **more)


tasks = dict(segmentation=dict(type="segmentation", classes=4), depth=dict(type="depth"))
data = dict(train=photos(split="0%:50%"), unlabelled=dict(type="ImageFolder", root=ROOT + "/pool"),
            test=photos(split="50%:100%"))
base = dict(random_init=True)
"""


@pytest.fixture
def own(tmp_path):
    """A config over labelled photos and a pool, right until a test spoils it."""
    root = write_labelled_photos(tmp_path / "data", 8)
    write_photos(root / "pool", 3)
    return root, write_config(tmp_path, "own.py", OWN.replace("ROOT", repr(str(root))))


def test_a_sound_set(own, tmp_path, capsys):
    root, path = own
    before = sorted(root.rglob("*"))
    assert tool("check.py", path, "--sheet", tmp_path / "sheet.png") == 0
    text = capsys.readouterr().out
    assert "train: 4 images, all of 48 x 64" in text and "unlabelled: 3 images, all of 48 x 64" in text
    assert "no faults, no warnings" in text
    every = np.concatenate([labels(index)["depth"].ravel() for index in range(4)])
    share = np.mean(every == 0)
    row = re.search(r"train\s*│ depth\s*│ 4 +│ (\S+)\s*│ (\S+)\s*│ m +│ (\S+)%", text)
    assert float(row[1]) == pytest.approx(every[every > 0].min(), rel=1e-3)
    assert float(row[2]) == pytest.approx(every.max(), rel=1e-3) and float(row[3]) == pytest.approx(
        100 * share, abs=0.06
    )
    ids = np.concatenate([labels(index)["segmentation"].ravel() for index in range(4)])
    assert f"{np.mean(ids[ids != 255] == 2):.1%}" in re.search(r"│ 2 +│ class 2 .*", text)[0]
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture.shape[0] > 300 and picture.shape[1] > 900
    assert sorted(root.rglob("*")) == before


def test_every_fault_is_named_once(own, capsys):
    root, path = own
    cut_off(root / "photos/0000.jpg")
    for index in (1, 2):
        cv2.imwrite(str(root / f"depth/{index:04d}.png"), np.full((48, 64), 60000, np.uint16) * 1)
    cv2.imwrite(str(root / "masks/0003.png"), np.full((48, 64), 9, np.uint8))
    cv2.imwrite(str(root / "masks/0004.png"), np.zeros((48, 48), np.uint8))
    cv2.imwrite(str(root / "depth/0005.png"), np.zeros((48, 64), np.uint16))
    (root / "depth/0007.png").write_bytes(b"")
    write_rotated(root / "pool/0001.jpg", np.zeros((48, 64, 3), np.uint8))
    assert tool("check.py", path, "--cfg-options", "data.train.targets.depth.scale=1e-2") == 1
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "photos/0000.jpg: not a readable image" in text
    assert "600 m in the median, above 100 m" in text and "in 2 files, first: " in text
    assert "masks/0003.png: a class map with 9: allowed are 0..3" in text
    assert "masks/0004.png: 48 x 48 pixels" in text
    assert "depth/0007.png: not a readable" in text
    assert "images of 2 sizes" in text and "0001.jpg is 64 x 48" in text and "give it size=(height, width)" in text
    assert "warning" in text and "depth/0005.png: has not one valid pixel of depth" in text
    assert re.search(r"own: \d+ faults", text)


@pytest.mark.parametrize("task", ["depth", "segmentation"])
def test_a_split_without_one_valid_pixel_is_a_fault_and_stops_a_run(own, task, capsys):
    root, path = own
    folder, value = {"depth": ("depth", np.uint16(0)), "segmentation": ("masks", np.uint8(255))}[task]
    for index in range(4):
        cv2.imwrite(str(root / f"{folder}/{index:04d}.png"), np.full((48, 64), value))
    assert tool("check.py", path) == 1
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    words = f"data.train: not one pixel of {task} is valid in 4 labels, such as {root / folder / '0000.png'}: correct"
    assert words in text and "own: 1 fault" in text
    config = load_config(path)
    sets = {"data.train": dataset(config, "train", config.tasks)}
    with pytest.raises(ValueError, match=re.escape(words) + r" the unit .*\(invalid=\) or the path"):
        check_labelled(sets)
    cv2.imwrite(str(root / f"{folder}/0002.png"), np.eye(48, 64, dtype=value.dtype))
    check_labelled(sets)
    assert tool("check.py", path) == 0


def test_a_run_on_labels_without_a_valid_pixel_trains_nothing(own, tmp_path, capsys):
    root, path = own
    for index in range(4):
        cv2.imwrite(str(root / f"depth/{index:04d}.png"), np.zeros((48, 64), np.uint16))
    asked = ["--cfg-options", "adaptation.batch_size=2", "--work-dir", tmp_path / "run"]
    assert tool("train.py", path, *asked) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: data.train: not one pixel of depth is valid in 4 labels, such as ")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_label_that_crops_miss_is_a_label(own):
    root, path = own
    for index in range(4):
        cv2.imwrite(str(root / f"depth/{index:04d}.png"), np.zeros((48, 64), np.uint16))
    stored = np.zeros((48, 64), np.uint16)
    stored[0, 0] = 1000
    cv2.imwrite(str(root / "depth/0003.png"), stored)
    crop = {"data.train.augment": {"zoom": (3.0,), "flip": 0.0}}
    config = load_config(path, crop)
    train = dataset(config, "train", config.tasks)
    assert not any((sample["depth"] > 0).any() for sample in train)
    check_labelled({"data.train": train})


def test_splits_in_two_units_are_a_warning(own, capsys):
    _, path = own
    assert tool("check.py", path) == 0
    assert "another unit" not in capsys.readouterr().out
    assert tool("check.py", path, "--cfg-options", "data.test.targets.depth.scale=1e-2") == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    medians = [np.median(depth[depth > 0]) for depth in (labels(index)["depth"] for index in range(8))]
    train, test = np.median(medians[:4]), 10 * np.median(medians[4:])
    assert f"depth: median {train:.3g} m in train, {test:.3g} m in test: one of them is in another unit" in text


def test_a_run_remarks_on_files_that_it_passes_over(tmp_path):
    write_photos(tmp_path, 2)
    assert ImageFolder(tmp_path).remark == ""
    for name in ("a.HEIC", "b.heic", "c.gif", ".hidden.gif"):
        (tmp_path / name).write_bytes(b"x")
    pool = Unlabelled(ImageFolder(tmp_path))
    assert re.search(r"3 files not read as images \(it holds .*1 \.gif file.*\); images are \.jpg", pool.remark)
    assert pool.remark == ImageList([tmp_path]).remark and str(tmp_path) in pool.remark


def test_a_data_set_that_cannot_be_built_is_a_fault_of_its_split(own, capsys):
    root, path = own
    (root / "depth/0001.png").unlink()
    assert tool("check.py", path) == 1
    text = capsys.readouterr().out
    assert "data.train: 1 of 4 images have no label file for 'depth'" in text and "test: 4 images" in text
    assert tool("check.py", path, "--split", "test") == 0
    assert tool("check.py", path, "--split", "tset") == 2
    assert "Did you mean 'test'" in capsys.readouterr().err


def test_one_photo_in_train_and_test_is_a_warning(own):
    _, path = own
    report = check(load_config(path, {"data.train.split": "0%:75%"}))
    assert [str(warning) for warning in report.warnings if "is in train and in test" in str(warning)]
    assert not report.faults


def test_rendered_rooms_and_the_labels_of_the_base(tmp_path):
    path = write_config(tmp_path)
    report = check(load_config(path), "train", tmp_path / "sheet.png")
    assert not report.faults and (tmp_path / "sheet.png").is_file()
    (ranges, _) = report.tables
    assert list(ranges.columns[1].cells) == ["albedo", "edges", "segmentation", "depth", "normals"]


class Failing(TinySet):
    def target(self, index, name):
        target = {}[name] if index == 1 else super().target(index, name)
        return target * 1000 if name == "depth" else target


def test_errors_of_own_code_are_faults():
    report = check_data_sets("own", {"train": Failing(tasks())})
    faults = [str(fault) for fault in report.faults]
    assert any("reading it raises KeyError: 'depth'" in fault for fault in faults)
    assert any("m in the median, above 100 m" in fault and "in 11 files" in fault for fault in faults)
    assert len(faults) == 4  # each kind once
