"""The check of a prepared set: a sound one passes in silence, and every planted fault is found and named."""

import os
import shutil

import numpy as np
import pytest
from builders.nyu_prepared import COUNTS, FOLDERS, SIZE, write_prepared
from builders.photos import write_hidden_files

from symerge_dense.preparation.check.check import check, check_tool
from symerge_dense.preparation.check.contents import nearest_unit
from symerge_dense.preparation.check.findings import Fault, Findings


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "nyuv2")


def change(path, do):
    np.save(path, do(np.load(path, allow_pickle=False)))


def change_all(folder, do):
    for path in folder.glob("*.npy"):
        change(path, do)


def put(value, *place):
    def do(array):
        array = array.copy()
        array[place] = value
        return array

    return do


def only_fault(root):
    report = check(root, samples=2)
    assert len(report.faults) == 1, report.faults
    return report.faults[0]


def test_a_sound_set_has_neither_faults_nor_warnings(sound, capsys):
    report = check(sound)
    assert report.faults == [] and report.warnings == []
    report.print()
    printed = capsys.readouterr().out
    for split, count in COUNTS.items():
        full = {"train": 795, "val": 654}[split]
        assert f"{split}: {count} images of 96 x 128; NYUv2's {split} split has {full}" in printed
        assert f"{split}: pairing: no folder is shifted against another ({count} images" in printed
        assert f"{split}: normal axes: best (x right, z forward, y up) at a median of 0.0" in printed
        assert all(f"{split}/{folder}" in printed for folder in FOLDERS)
    assert "furniture" in printed and "float64" in printed and "no faults, no warnings" in printed


def test_hidden_files_are_no_part_of_a_set(root):
    for folder in FOLDERS:
        write_hidden_files(root / "train" / folder, like=".npy")
    report = check(root)
    assert not report.faults and not report.warnings


def test_the_shares_of_classes_are_counted_over_the_labelled_pixels(sound):
    labels = np.stack([np.load(sound / "val" / "label" / f"{i}.npy", allow_pickle=False) for i in range(COUNTS["val"])])
    shares = list(check(sound).tables[1].columns[3].cells)
    assert shares == [f"{(labels == index).sum() / (labels >= 0).sum():.1%}" for index in range(13)]


def test_the_exit_code_says_whether_there_are_faults(root, capsys):
    assert check_tool(str(root), 13, None) == 0
    (root / "val" / "depth" / "4.npy").unlink()
    assert check_tool(str(root), 13, str(root / "sheet.png")) == 1
    assert (root / "sheet.png").stat().st_size > 10000
    assert "1 fault, no warnings" in capsys.readouterr().out


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("folder", "number"), [*((folder, 3) for folder in FOLDERS), ("image", 0), ("depth", 9)])
def test_a_missing_number(root, folder, number):
    (root / "val" / folder / f"{number}.npy").unlink()
    assert only_fault(root) == Fault(root / "val" / folder / f"{number}.npy", "missing; expected 0.npy to 9.npy")


def test_many_missing_files_are_one_fault(root):
    for number in (2, 5, 7):
        (root / "train" / "label" / f"{number}.npy").unlink()
    found = only_fault(root)
    assert found == Fault(root / "train" / "label" / "2.npy", "missing; expected 0.npy to 11.npy", 3)
    assert str(found) == f"missing; expected 0.npy to 11.npy; in 3 files, first: {found.path}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("999999999.npy", "extra: most folders of val/ end at 9"),
        ("03.npy", "not a name"),
        ("copy of 3.npy", "not a name"),
        ("²", "not a"),
    ],
)
def test_a_file_too_many(root, name, text):
    name = name if name.endswith(".npy") else f"{name}.npy"
    shutil.copy(root / "val" / "image" / "3.npy", root / "val" / "image" / name)
    found = only_fault(root)
    assert found.path == root / "val" / "image" / name and text in found.text


def test_a_missing_folder(root):
    shutil.rmtree(root / "train" / "normal")
    found = only_fault(root)
    assert found.path == root / "train" / "normal" and "folder missing" in found.text


def test_a_missing_split_and_an_empty_one(root):
    shutil.rmtree(root / "val")
    assert only_fault(root) == Fault(root / "val", "folder missing; a set has train/ and val/")
    for folder in FOLDERS:
        (root / "val" / folder).mkdir(parents=True)
    found = check(root, samples=2).faults
    assert [fault.path.name for fault in found] == list(FOLDERS) or found[0].files == 4
    assert all("holds no numbered .npy file" in fault.text for fault in found)


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: not there; give the folder that holds \{train,val\}"):
        check(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no train/ and no val/ in it; give the folder"):
        check(tmp_path)
    with pytest.raises(ValueError, match=r"classes=14: NYUv2's labels have 13 or 40 classes"):
        check(tmp_path, classes=14)


# -- files ------------------------------------------------------------------------------------------------------------
def test_a_pickled_file(root):
    path = root / "train" / "depth" / "3.npy"
    np.save(path, np.array([{"depth": 1}], object), allow_pickle=True)
    found = only_fault(root)
    assert found.path == path and "not a readable .npy array of numbers" in found.text


@pytest.mark.parametrize(("folder", "size"), [*((folder, 5000) for folder in FOLDERS), ("depth", 0), ("depth", 40)])
def test_a_truncated_file(root, folder, size):
    os.truncate(root / "train" / folder / "5.npy", size)
    found = only_fault(root)
    assert found.path == root / "train" / folder / "5.npy" and "not a readable .npy array" in found.text


@pytest.mark.parametrize("dtype", ["complex64", "bool", "U3"])
def test_a_file_that_holds_no_numbers(root, dtype):
    change(root / "train" / "normal" / "5.npy", lambda array: array.astype(dtype))
    assert "expected float or integer numbers" in only_fault(root).text


@pytest.mark.parametrize(
    ("folder", "do", "text"),
    [
        ("image", lambda a: a[:50], "shape (50, 128, 3), expected (96, 128, 3)"),
        ("label", lambda a: a[..., None, None], "shape (96, 128, 1, 1), expected (96, 128)"),
        ("depth", lambda a: np.moveaxis(a, -1, 0), "channels come last; store np.moveaxis(array, 0, -1)"),
        ("normal", lambda a: a[..., :2], "shape (96, 128, 2), expected (96, 128, 3)"),
        ("normal", lambda a: np.swapaxes(a, 0, 1), "rows and columns are swapped"),
    ],
)
def test_a_wrong_shape(root, folder, do, text):
    change(root / "val" / folder / "2.npy", do)
    found = only_fault(root)
    assert found.path == root / "val" / folder / "2.npy" and text in found.text


def test_channels_first_throughout_is_three_faults(root):
    for folder in ("image", "depth", "normal"):
        change_all(root / "val" / folder, lambda array: np.moveaxis(array, -1, 0))
    found = check(root, samples=2).faults
    assert [(fault.path.parent.name, fault.files) for fault in found] == [("image", 10), ("depth", 10), ("normal", 10)]
    assert all("channels come last" in fault.text for fault in found)


# -- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("folder", "value"), [*((folder, np.nan) for folder in FOLDERS), ("image", np.inf), ("depth", -np.inf)]
)
def test_a_value_that_is_not_finite(root, folder, value):
    change(root / "train" / folder / "7.npy", put(value, 50, 60))
    found = only_fault(root)
    assert found.path == root / "train" / folder / "7.npy" and "holds NaN or infinite values" in found.text


def test_labels_outside_the_classes_are_counted_by_value(root):
    for number in (3, 4, 8):
        change(root / "train" / "label" / f"{number}.npy", put(13, 40, slice(50)))
    found = only_fault(root)
    assert found == Fault(root / "train" / "label" / "3.npy", "label 13; allowed are -1..12, and 255 for invalid", 3)
    change(root / "train" / "label" / "9.npy", put(2.5, 0, 0))
    assert [fault.text[:10] for fault in check(root, samples=2).faults] == ["label 2.5;", "label 13; "]


def test_forty_classes_checked_as_thirteen_are_one_fault(root):
    for split in COUNTS:
        change_all(root / split / "label", lambda array: np.where(array < 0, array, array * 3))
    found = next(fault for fault in check(root, samples=2).faults if fault.path.parent.parent.name == "train")
    assert found.text == "labels 15, 18, 21, ... 36; allowed are -1..12, and 255 for invalid" and found.files == 12
    assert check(root, classes=40, samples=2).faults == []


def test_invalid_labels_may_be_255_and_files_unsigned(root):
    change_all(root / "train" / "label", lambda array: np.where(array < 0, 255, array).astype(np.uint8)[..., None])
    change_all(root / "train" / "image", lambda array: (array * 255).round().astype(np.uint8))
    report = check(root)
    assert report.faults == [] and report.warnings == []


def test_images_out_of_range(root):
    change_all(root / "train" / "image", lambda array: array * 255)
    change(root / "val" / "image" / "1.npy", lambda array: array * 2 - 1)
    first, second = check(root, samples=2).faults
    assert first.files == 12 and "images must lie in 0..1; divide by 255" in first.text
    assert second.path == root / "val" / "image" / "1.npy" and second.text.endswith("images must lie in 0..1")


@pytest.mark.parametrize(
    ("factor", "unit"), [(100, "centimetres"), (1000, "millimetres"), (10000, "tenths of a millimetre")]
)
def test_depth_in_another_unit(root, factor, unit):
    change_all(root / "train" / "depth", lambda array: array * factor)
    found = only_fault(root)
    assert found.files == 12 and found.path == root / "train" / "depth" / "0.npy"
    assert found.text.startswith("median ") and found.text.endswith(f": {unit}? divide by {factor}")


def test_nyuv2s_median_in_millimetres():
    assert [nearest_unit(median) for median in (2841, 284.1, 28410, 900, 8000)] == [1000, 100, 10000, 1000, 1000]


def test_one_file_in_millimetres_among_metres(root):
    change(root / "train" / "depth" / "6.npy", lambda array: (array * 1000).astype(np.uint16))
    assert only_fault(root).path == root / "train" / "depth" / "6.npy"
    assert any("several dtypes: float32, uint16" in warning.text for warning in check(root, samples=2).warnings)


def test_negative_depth_and_depth_of_no_unit(root):
    change(root / "train" / "depth" / "6.npy", put(-1, 10, 10))
    assert only_fault(root) == Fault(
        root / "train" / "depth" / "6.npy", "down to -1: negative depth; 0 marks pixels without one"
    )
    change_all(root / "val" / "depth", lambda array: array / 50)
    assert any(
        warning.path == root / "val" / "depth" and "hardly metres" in warning.text
        for warning in check(root, samples=2).warnings
    )


@pytest.mark.parametrize(
    ("do", "text"),
    [
        (lambda a: a * 0.7, "median length 0.70: not of unit length"),
        (lambda a: (a + 1) / 2, "no component is negative: the colours of a picture? decode by 2 v - 1"),
        (lambda a: ((a + 1) * 127.5).round().astype(np.uint8), "colours of a picture? decode by 2 v / 255 - 1"),
    ],
)
def test_normals_that_are_no_unit_vectors(root, do, text):
    change_all(root / "train" / "normal", do)
    found = check(root, samples=2).faults[0]  # the axes, too, may be at fault then
    assert found.path == root / "train" / "normal" / "0.npy" and text in found.text and found.files == 12


def test_a_masks_white_among_the_normals(root):
    change_all(root / "train" / "normal", put(1, slice(20)))
    found = only_fault(root)
    assert "of the pixels: vectors longer than 1.2" in found.text and found.files == 12


def test_files_in_another_order(root):
    folder = root / "train" / "label"
    arrays = [np.load(folder / f"{number}.npy", allow_pickle=False) for number in range(12)]
    for number, name in enumerate(sorted(map(str, range(12)))):  # 0, 1, 10, 11, 2, ...
        np.save(folder / f"{number}.npy", arrays[int(name)])
    found = only_fault(root)
    assert found.path == folder and "fit those of no other folder" in found.text and found.files == 1


# -- warnings ---------------------------------------------------------------------------------------------------------
def warnings_of(root):
    report = check(root, samples=2)
    assert report.faults == []
    return [(warning.path, warning.text) for warning in report.warnings]


def test_swapped_colour_channels(root):
    change_all(root / "val" / "image", lambda array: array[..., ::-1])
    ((path, text),) = warnings_of(root)
    assert path == root / "val" / "image" and text.startswith("images may be BGR: their mean is (")


def test_classes_that_never_occur(root):
    change_all(root / "train" / "label", lambda array: np.where(np.isin(array, [0, 12]), 11, array))
    assert warnings_of(root) == [(root / "train" / "label", "classes that never occur: bed, window")]


@pytest.mark.parametrize(
    ("folder", "task", "value"), [("label", "segmentation", -1), ("depth", "depth", 0), ("normal", "normals", 0)]
)
def test_a_task_that_is_hardly_labelled(root, folder, task, value):
    change_all(root / "train" / folder, put(value, slice(30, None)))
    change(root / "train" / folder / "5.npy", put(value, slice(None)))
    found = warnings_of(root)
    assert (root / "train" / folder / "5.npy", f"not one valid pixel of {task}") in found
    assert any(
        path == root / "train" / folder and text.endswith(f"of the pixels carry no {task}") for path, text in found
    )


def test_the_same_words_about_other_folders_stay_apart(tmp_path):
    findings = Findings()
    for folder, number in (("depth", 1), ("depth", 2), ("normal", 1)):
        findings.add(tmp_path / folder / f"{number}.npy", "bent", lead=f"by {number}")
    assert findings.faults == [
        Fault(tmp_path / "depth" / "1.npy", "by 1: bent", 2),
        Fault(tmp_path / "normal" / "1.npy", "by 1: bent", 1),
    ]


def test_frames_of_the_layouts_size_are_found_by_majority(root):
    assert SIZE == (96, 128)
    change(root / "train" / "image" / "0.npy", lambda array: array[::2, ::2])
    assert only_fault(root).path == root / "train" / "image" / "0.npy"
