"""Numbers of prepared frames are compared with those that were written; one's own frames need no list."""

import numpy as np
import pytest
from builders.pipeline_tiny import write_nyuv2

from symerge_dense.datasets.array_checksums import NAME, array_checksum, read_checksums, write_checksums
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.preparation.check.check import check


@pytest.fixture
def root(tmp_path):
    """NYUv2 with a list of checksums for 'val' and none for 'train'."""
    write_nyuv2(tmp_path)
    files = sorted((tmp_path / "val").glob("*/*.npy"))
    write_checksums(
        tmp_path / "val", {f"{path.parent.name}/{path.name}": array_checksum(np.load(path)) for path in files}
    )
    return tmp_path


def edit(path):
    array = np.load(path)
    array.reshape(-1)[5] += 1e-3
    np.save(path, array)


def read(root, split="val"):
    found = NYUv2(root, split, {"depth": {}})
    return [found.image(1), found.target(1, "depth")]


@pytest.mark.parametrize("file", ["image/1.npy", "depth/1.npy"])
def test_another_number_is_named_until_its_line_is_removed(root, file):
    read(root)
    edit(root / "val" / file)
    with pytest.raises(ValueError, match=rf"{file}: its numbers are not those .*{NAME}.*If you changed it yourself"):
        read(root)
    kept = read_checksums(root / "val")
    del kept[file]
    write_checksums(root / "val", kept)
    read(root)


def test_files_without_a_list_may_hold_any_numbers(root):
    edit(root / "train" / "image" / "1.npy")
    read(root, "train")
    edit(root / "val" / "normal" / "1.npy")  # which nobody reads
    read(root)


def test_a_file_is_compared_once(root):
    found = NYUv2(root, "val", {"depth": {}})
    found.image(1)
    edit(root / "val" / "image" / "1.npy")
    found.image(1)
    with pytest.raises(ValueError, match="its numbers"):
        NYUv2(root, "val", {"depth": {}}).image(1)


@pytest.mark.parametrize("text", ["", "[]", '{"image/0.npy": 1}', '{"image/0.npy"'])
def test_a_damaged_list_is_refused(root, text):
    (root / "val" / NAME).write_text(text)
    with pytest.raises(ValueError, match=f"{NAME}: is no list of checksums.*remove it"):
        NYUv2(root, "val")
    assert any("no list of checksums" in str(fault) for fault in check(root).faults)


def test_the_check_of_a_folder_finds_what_was_changed(root):
    before = list(check(root).faults)
    edit(root / "val" / "depth" / "1.npy")
    (fault,) = [fault for fault in check(root).faults if fault not in before]
    assert "depth/1.npy" in str(fault) and "its numbers" in str(fault)
