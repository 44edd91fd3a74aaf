"""The archive of NYUv2's normals: unpacked once, safely, and bad ones are named."""

import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from builders.nyu_mat_files import copy_without_normals, link_copy, pack_normals, write_mat

from symerge_dense.datasets.nyuv2 import normals as normals_archive
from symerge_dense.datasets.nyuv2.mat import NYUv2Mat
from symerge_dense.datasets.nyuv2.normals import normals_folder


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_mat(tmp_path_factory.mktemp("official"), 3, (3, 1), (2,))


@pytest.fixture
def copied(official, tmp_path):
    return link_copy(official, tmp_path)


@pytest.fixture
def packed(copied):
    pack_normals(copied)
    return copied


def test_the_archive_is_unpacked_once_next_to_itself(packed, official):
    dataset = NYUv2Mat(packed, "val", {"normals": {}})
    truth = NYUv2Mat(official, "val", {"normals": {}})
    np.testing.assert_array_equal(dataset[0]["normals"], truth[0]["normals"])
    picture = packed / "normals_gt" / "normals" / "0001.png"
    written = picture.stat().st_mtime_ns, picture.stat().st_ino
    NYUv2Mat(packed, "train", {"normals": {}})
    assert (picture.stat().st_mtime_ns, picture.stat().st_ino) == written
    assert not list(packed.glob(".*"))
    for data, root in ((dataset, packed), (truth, official)):  # what is read is what a manifest hashes
        assert data.source_files[-2:] == [root / "normals_gt" / part / "0001.png" for part in ("normals", "masks")]


def test_the_archive_stays_packed_where_no_normals_are_asked_for(packed):
    dataset = NYUv2Mat(packed, "val", {"depth": {}})
    assert not (packed / "normals_gt").exists() and all("normals" not in path.name for path in dataset.source_files)


def test_two_at_once_unpack_it_in_peace(packed):
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(normals_folder, [packed, packed]))
    assert folders == [packed / "normals_gt"] * 2 and len(list(folders[0].rglob("*.png"))) == 6
    assert not list(packed.glob(".*"))


def evil(name, **settings):
    def add(archive):
        member = tarfile.TarInfo(name)
        for key, value in settings.items():
            setattr(member, key, value)
        archive.addfile(member)

    return add


@pytest.mark.parametrize(
    "add",
    [
        evil("../evil"),
        evil("normals_gt/../../evil"),
        evil("normals_gt/normals/evil", type=tarfile.SYMTYPE, linkname="/"),
        evil("normals_gt/evil", type=tarfile.SYMTYPE, linkname="../.."),
        evil("evil", type=tarfile.FIFOTYPE),
        evil("normals_gt/evil", type=tarfile.SYMTYPE, linkname="normals"),
        evil("evil", type=tarfile.CHRTYPE),
        evil("normals_gt/evil", type=tarfile.LNKTYPE, linkname="../splits.mat"),
    ],
    ids=["parent", "roundabout", "link to /", "link to parent", "pipe", "link inside", "device", "hard link"],
)
def test_a_malicious_archive_writes_nothing(copied, add):
    shutil.rmtree(copied / "normals_gt")
    with tarfile.open(copied / "normals_gt.tgz", "w:gz") as archive:
        for part in ("normals", "masks"):
            evil(f"normals_gt/{part}", type=tarfile.DIRTYPE, mode=0o755)(archive)
        add(archive)
    refused(copied, "")


def refused(root, message):
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(ValueError, match=rf"(?s)normals_gt\.tgz: cannot be unpacked .*{message}.*web\.archive\.org"):
        NYUv2Mat(root, "val", {"normals": {}})
    assert sorted(root.parent.rglob("*")) == before


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_damaged_archive_is_named(packed, share):
    path = packed / "normals_gt.tgz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(packed, "")


def test_an_archive_of_something_else_is_named(packed):
    with tarfile.open(packed / "normals_gt.tgz", "w:gz") as archive:
        archive.add(packed / "splits.mat", "splits.mat")
    refused(packed, "does not hold normals_gt/normals")


def test_an_archive_that_would_fill_the_disk_is_refused(packed, monkeypatch):
    monkeypatch.setattr(normals_archive, "LARGEST", 1000)
    refused(packed, "would unpack to more than")


def test_no_normals_at_all_says_what_to_do(official, tmp_path):
    root = copy_without_normals(official, tmp_path)
    with pytest.raises(ValueError, match=r"(?s)neither.*web\.archive\.org/.*/normals_gt\.tgz.*normals='depth'"):
        NYUv2Mat(root, "train", {"normals": {}})
    assert len(NYUv2Mat(root, "train", {"depth": {}})) == 2


@pytest.mark.parametrize("part", ["normals", "masks"])
def test_a_missing_picture_is_named(copied, part):
    (copied / "normals_gt" / part / "0002.png").unlink()
    with pytest.raises(ValueError, match=rf"{part}/0002\.png: missing, one of 1"):
        NYUv2Mat(copied, "train", {"normals": {}})
    assert len(NYUv2Mat(copied, "val", {"normals": {}})) == 1


def test_a_picture_of_another_size_or_none_is_named(copied):
    path, mask = (copied / "normals_gt" / part / "0001.png" for part in ("normals", "masks"))
    dataset = NYUv2Mat(copied, "val", {"normals": {}})
    for broken in (path, mask):
        whole = broken.read_bytes()
        broken.unlink()
        cv2.imwrite(str(broken), np.zeros((240, 320, 3), np.uint8))
        with pytest.raises(ValueError, match=rf"{broken.parent.name}/0001\.png: \(240, 320\), expected .*480, 640"):
            dataset[0]
        broken.write_bytes(b"<html>")
        with pytest.raises(ValueError, match=rf"{broken.parent.name}/0001\.png: not a readable picture"):
            dataset[0]
        broken.write_bytes(whole)
    assert dataset[0]["normals"].any()
