"""The contact sheet."""

import cv2
import numpy as np
import pytest
import torch
from builders.nyu_prepared import FOLDERS, write_prepared

from symerge_dense.preparation.check.contact_sheet import contact_sheet, read_lines
from symerge_dense.tasks.segmentation import Segmentation


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def size_of(path):
    return cv2.imread(str(path)).shape[:2]


def test_lines_are_evenly_spaced_and_show_the_files(sound):
    task = Segmentation(13)
    lines = read_lines(sound / "train", 4, task)
    assert [line.number for line in lines] == [0, 4, 7, 11]
    for line in lines:
        stored = {
            folder: np.load(sound / "train" / folder / f"{line.number}.npy", allow_pickle=False) for folder in FOLDERS
        }
        assert all(picture.dtype == np.uint8 and picture.shape == (96, 128, 3) for picture in line.pictures.values())
        np.testing.assert_allclose(line.pictures["image"] / 255, stored["image"], atol=1 / 255)
        assert line.classes == set(np.unique(stored["label"]).astype(int)) - {-1}
        unlabelled = stored["label"] < 0
        assert unlabelled.any() and (line.pictures["label"][unlabelled] == 0).all()
        assert (line.pictures["label"][~unlabelled] > 0).any(-1).all()
        assert (line.pictures["normal"][~stored["normal"].any(-1)] == 0).all()
        near, far = (stored["depth"][..., 0] == find(stored["depth"]) for find in (np.min, np.max))
        assert line.pictures["depth"][near].sum() > line.pictures["depth"][far].sum()  # yellow is near, deep blue far


def test_a_split_with_fewer_images_shows_all_of_them(sound):
    assert [line.number for line in read_lines(sound / "val", 99, Segmentation(13))] == list(range(10))


@pytest.mark.parametrize("classes", [13, 40])
def test_the_sheet_grows_with_the_lines(sound, tmp_path, classes):
    sizes = []
    for count in (2, 6):
        contact_sheet(sound, tmp_path / "sheet.png", count=count, classes=classes)
        sizes.append(size_of(tmp_path / "sheet.png"))
    assert sizes[0][1] == sizes[1][1] and sizes[1][0] > sizes[0][0] + 250
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]  # no temporary file stays


def test_the_same_set_gives_the_same_bytes(sound, tmp_path):
    for name in ("a.png", "b.png"):
        contact_sheet(sound, tmp_path / name, count=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_legend_has_the_classes_that_are_shown(sound, tmp_path):
    contact_sheet(sound, tmp_path / "sheet.png", count=4)
    legend = cv2.imread(str(tmp_path / "sheet.png"))[-80:, :, ::-1]  # below the pictures
    task = Segmentation(13)
    shown = set().union(*(line.classes for split in ("train", "val") for line in read_lines(sound / split, 2, task)))
    palette = task.colorize(torch.arange(13)[None])[0]
    assert {index for index in range(13) if (legend == palette[index]).all(-1).any()} == shown


def test_one_split_alone_fills_the_page(sound, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "val").symlink_to(sound / "val")
    contact_sheet(tmp_path / "set", tmp_path / "one.png", count=4)
    contact_sheet(sound, tmp_path / "both.png", count=4)
    assert size_of(tmp_path / "one.png")[1] < 0.6 * size_of(tmp_path / "both.png")[1]


def test_what_cannot_be_drawn_leaves_an_empty_frame(tmp_path):
    root = write_prepared(tmp_path / "set")
    folder = root / "val"
    (folder / "image" / "0.npy").write_bytes(b"no array")
    (folder / "depth" / "0.npy").unlink()
    np.save(folder / "normal" / "0.npy", np.zeros((96, 128, 2)))
    np.save(folder / "label" / "0.npy", np.full((96, 128), 77.0))
    line = read_lines(folder, 1, Segmentation(13))[0]
    assert {name for name, picture in line.pictures.items() if picture is None} == {"image", "depth", "normal"}
    assert line.classes == set() and (line.pictures["label"] == 0).all()
    contact_sheet(root, tmp_path / "sheet.png", count=2)
    assert size_of(tmp_path / "sheet.png")[0] > 100


def test_values_that_are_no_numbers_can_be_drawn(tmp_path):
    root = write_prepared(tmp_path / "set")
    for name in FOLDERS:
        path = root / "val" / name / "0.npy"
        array = np.load(path, allow_pickle=False)
        array[:10] = np.nan
        np.save(path, array)
    assert all(picture is not None for picture in read_lines(root / "val", 1, Segmentation(13))[0].pictures.values())


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="to draw; give the folder of a prepared set"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")
    for folder in FOLDERS:
        (tmp_path / "train" / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match="to draw"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="count=0: a contact sheet needs at least one image"):
        contact_sheet(tmp_path, tmp_path / "sheet.png", count=0)
    assert not (tmp_path / "sheet.png").exists()
