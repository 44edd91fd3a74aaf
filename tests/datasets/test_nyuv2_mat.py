"""NYUv2's official files: every value where the makers put it, one frame read at a time, bad files named."""

import pickle
import tracemalloc
from functools import cache

import h5py
import numpy as np
import pytest
import scipy.io
from builders.nyu_mat_files import (
    GREY,
    LABELED,
    LABELS13,
    copy_without_normals,
    link_copy,
    write_class13,
    write_header,
    write_labeled,
    write_mat,
    write_splits,
)
from builders.nyu_scene import scene
from torch.utils.data import DataLoader

from symerge_dense.datasets.nyuv2.mat import LabeledMat, NYUv2Mat
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.normals import Normals
from symerge_dense.tasks.segmentation import Segmentation

TRAIN, TEST = (3, 1), (2,)  # counted from 1, and not in rising order
HALF_STEP = np.degrees(np.sqrt(3) / 255)  # rounding to 8 bits moves each of three channels by at most 1 / 255
frame = cache(scene)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_mat(tmp_path_factory.mktemp("official"), 3, TRAIN, TEST)


@pytest.fixture
def copied(official, tmp_path):
    return link_copy(official, tmp_path)


def tasks(classes=13):
    return {"segmentation": Segmentation(classes), "edges": Edges(), "depth": Depth(), "normals": Normals()}


def labels(number, classes):
    known = frame(number).label40
    return np.array([255, *(LABELS13[0].astype(int) - 1 if classes == 13 else range(40))])[known]


# -- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", [13, 40])
@pytest.mark.parametrize("split, numbers", [("train", (2, 0)), ("val", (1,))])
def test_every_pixel_in_the_order_of_the_split(official, split, numbers, classes):
    dataset = NYUv2Mat(official, split, tasks(classes))
    assert len(dataset) == len(numbers)
    for index, number in enumerate(numbers):
        sample, truth = dataset[index], frame(number)
        np.testing.assert_array_equal(sample["image"], truth.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(sample["segmentation"], labels(number, classes))
        np.testing.assert_array_equal(sample["depth"][0], truth.depth)
        assert sample["index"] == index


@pytest.mark.parametrize("split, index, number", [("train", 0, 2), ("train", 1, 0), ("val", 0, 1)])
def test_normals_are_those_of_the_same_frame_to_8_bits(official, split, index, number):
    found, truth = NYUv2Mat(official, split).target(index, "normals"), frame(number).normal.copy()
    truth[GREY] = 0  # inside the mask, and yet without a direction
    np.testing.assert_array_equal(found.any(-1), truth.any(-1))
    both = truth.any(-1)
    off = np.degrees(2 * np.arcsin(np.linalg.norm(found[both].astype(np.float64) - truth[both], axis=-1) / 2))
    assert off.max() < HALF_STEP and found.dtype == np.float32


def test_normals_from_depth_need_no_pictures(official, tmp_path):
    dataset = NYUv2Mat(copy_without_normals(official, tmp_path), "val", tasks(), normals="depth", crop="eigen")
    found, truth = dataset.target(0, "normals"), frame(1).normal[45:471, 41:601]
    cosine = (found * truth).sum(-1)[found.any(-1) & truth.any(-1)]
    assert found.shape == (426, 560, 3) and np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 0.1
    assert dataset.source_files == [
        tmp_path / "bare" / name for name in (LABELED, "splits.mat", "classMapping40.mat", "class13Mapping.mat")
    ]


def test_crop_and_size(official):
    whole, cut = NYUv2Mat(official, "val", tasks()), NYUv2Mat(official, "val", tasks(), crop="eigen", size=(142, 186))
    sample = cut[0]
    assert {tuple(sample[name].shape[-2:]) for name in ("image", *tasks())} == {(142, 186)}
    for name in ("image", "depth"):
        first = float(whole[0][name][..., 45:471, 41:601].mean())
        assert float(sample[name].mean()) == pytest.approx(first, rel=0.01)


def test_chunks_that_reach_over_frames_change_nothing(copied):
    (copied / LABELED).unlink()
    write_labeled(copied / LABELED, [frame(number) for number in range(3)], chunked=True)
    with h5py.File(copied / LABELED) as file:
        assert file["labels"].chunks[0] == 2
    sample = NYUv2Mat(copied, "train", {"segmentation": {}, "depth": {}})[0]
    np.testing.assert_array_equal(sample["image"], frame(2).image.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample["segmentation"], labels(2, 13))
    np.testing.assert_array_equal(sample["depth"][0], frame(2).depth)


def test_depth_that_cannot_be_is_invalid(copied):
    depth = change_array(copied, "depths", lambda array: array.__setitem__((1, 0, slice(4)), [np.nan, -1, np.inf, 0]))
    found = NYUv2Mat(copied, "val", {"depth": {}}).target(0, "depth")
    assert not found[:4, 0].any() and found.dtype == np.float32
    np.testing.assert_array_equal(found[4:], depth[1].T[4:])


def test_the_files_are_those_of_matlab(official):
    """The fixture itself: a userblock with MATLAB's header, axes in reverse, cells as references."""
    assert (official / LABELED).read_bytes()[:10] == b"MATLAB 7.3" and h5py.is_hdf5(official / LABELED)
    with h5py.File(official / LABELED) as file:
        shapes = {name: (file[name].shape, file[name].dtype.str) for name in ("images", "depths", "labels", "names")}
        assert "".join(chr(number) for number in file[file["names"][0, 4]][:, 0]) == "thing 5"
    assert shapes == {
        "images": ((3, 3, 640, 480), "|u1"),
        "depths": ((3, 640, 480), "<f4"),
        "labels": ((3, 640, 480), "<u2"),
        "names": ((1, 894), "|O"),
    }


# -- one frame at a time, in any process ------------------------------------------------------------------------------
def test_a_frame_costs_a_frame(tmp_path):
    """1449 frames, never written, so they take no room on disk; read as a whole they would take 3 GB."""
    with h5py.File(tmp_path / LABELED, "w", userblock_size=512) as file:
        for name, shape, kind in (
            ("images", (1449, 3, 640, 480), "u1"),
            ("depths", (1449, 640, 480), "f4"),
            ("labels", (1449, 640, 480), "u2"),
        ):
            file.create_dataset(name, shape, kind)
    write_header(tmp_path / LABELED)
    tracemalloc.start()
    try:
        mat = LabeledMat(tmp_path / LABELED)
        for name, share in (("images", 3), ("depths", 4), ("labels", 2)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            mat.read(name, 1448)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 2.2 * share * 640 * 480  # as stored, and turned
    finally:
        tracemalloc.stop()
    assert mat.count == 1449


def test_a_copy_in_another_process_opens_its_own_file(official):
    dataset = NYUv2Mat(official, "train", {"depth": {}})
    before = dataset[0]
    assert dataset.mat._opened is not None
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.mat._opened is None
    np.testing.assert_array_equal(copy[0]["depth"], before["depth"])


def test_two_workers_read_what_one_process_reads(official):
    dataset = NYUv2Mat(official, "train", tasks())
    alone = [dataset[key] for key in (0, 1, 2, 3)]  # the handle is open when the workers are forked
    loader = DataLoader(dataset, batch_size=1, sampler=[0, 1, 2, 3], num_workers=2)
    for expected, batch in zip(alone, loader, strict=True):
        for name in ("image", *tasks()):
            np.testing.assert_array_equal(batch[name][0], expected[name])


# -- bad files --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, url",
    [
        (LABELED, "horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/"),
        ("splits.mat", "horatio.cs.nyu.edu/.*/splits.mat"),
        ("classMapping40.mat", "github.com/ankurhanda/nyuv2-meta-data/.*classMapping40.mat"),
    ],
)
def test_a_missing_file_is_named_with_where_to_get_it(copied, name, url):
    (copied / name).unlink()
    with pytest.raises(ValueError, match=rf"(?s){name}: missing\. Fetch.*{url}.*into {copied}"):
        NYUv2Mat(copied)


def test_the_mapping_to_13_may_be_missing_but_not_wrong(copied):
    write_class13(copied, LABELS13[:, ::-1])
    with pytest.raises(ValueError, match=r"class13Mapping\.mat: labels13 is another mapping .*Remove the file"):
        NYUv2Mat(copied)
    scipy.io.savemat(copied / "class13Mapping.mat", {"labels13": LABELS13})
    with pytest.raises(ValueError, match=r"class13Mapping\.mat: no readable 'classMapping13'"):
        NYUv2Mat(copied)
    (copied / "class13Mapping.mat").unlink()
    assert len(NYUv2Mat(copied)) == 2


def replace(root, content):
    (root / LABELED).unlink()
    (root / LABELED).write_bytes(content)


def change_array(root, name, change):
    """``change(array)`` of the large file's array ``name``, in a file of its own; returns the array as it is then."""
    replace(root, (root / LABELED).read_bytes())
    with h5py.File(root / LABELED, "r+") as file:
        array = file[name][()]
        change(array)
        file[name][...] = array
    return array


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"MATLAB 5.0 MAT-file".ljust(2000), bytes(4096)])
def test_what_is_not_hdf5_is_named(copied, content):
    replace(copied, content)
    with pytest.raises(ValueError, match=rf"{LABELED}: not a readable MATLAB 7\.3 \(HDF5\) file .*fetch this file"):
        NYUv2Mat(copied)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_truncated_download_is_named(copied, share):
    whole = (copied / LABELED).read_bytes()
    replace(copied, whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"{LABELED}: not a readable .*truncated"):
        NYUv2Mat(copied)


def test_a_damaged_chunk_is_named(copied):
    (copied / LABELED).unlink()
    write_labeled(copied / LABELED, [frame(number) for number in range(3)], chunked=True)
    with h5py.File(copied / LABELED) as file:
        place = file["images"].id.get_chunk_info_by_coord((1, 0, 0, 0)).byte_offset + 512
    with (copied / LABELED).open("r+b") as file:
        file.seek(place)
        file.write(bytes(64))
    dataset = NYUv2Mat(copied, "val")
    with pytest.raises(ValueError, match=rf"{LABELED}: frame 1 of 'images' cannot be read"):
        dataset.image(0)
    np.testing.assert_array_equal(NYUv2Mat(copied).image(0), frame(2).image)


def drop(name):
    return lambda file: file.__delitem__(name)


def put(name, *arguments, **settings):
    def change(file):
        del file[name]
        file.create_dataset(name, *arguments, **settings)

    return change


def link_elsewhere(name, link):
    def change(file):
        del file[name]
        file[name] = link

    return change


def external_bytes(file):
    del file["labels"]
    file.create_dataset("labels", (3, 640, 480), "u2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize(
    "change, message",
    [
        (drop("depths"), "holds no array 'depths', expected floats"),
        (drop("images"), "holds no array 'images'"),
        (
            put("images", (3, 480, 640, 3), "u1"),
            r"'images' is uint8 of shape \(3, 480, 640, 3\), expected uint8 \(N, 3,",
        ),
        (put("depths", (3, 480, 640), "f4"), r"'depths' is float32 of shape \(3, 480, 640\), expected floats"),
        (put("depths", (3, 640, 480), "u2"), "'depths' is uint16 .*expected floats"),
        (put("images", (3, 3, 640, 480), "u2"), "'images' is uint16"),
        (put("labels", (3, 640, 480), "f4"), "'labels' is"),
        (put("labels", (3, 640, 480), h5py.ref_dtype), "'labels' is object"),
        (put("labels", (2, 640, 480), "u2"), "2 lab"),
        (put("images", data=h5py.Empty("u1")), "'images' is uint8 of shape None"),
        (link_elsewhere("depths", h5py.ExternalLink("/etc/passwd", "x")), "holds no array 'depths'"),
        (link_elsewhere("depths", h5py.SoftLink("/nowhere")), "holds no array 'depths'"),
        (external_bytes, "holds no array 'labels'"),
    ],
)
def test_another_structure_is_named_with_what_was_expected(copied, change, message):
    replace(copied, (copied / LABELED).read_bytes())
    with h5py.File(copied / LABELED, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"{LABELED}: .*{message}.*(?i:fetch this file again)"):
        NYUv2Mat(copied)


@pytest.mark.parametrize(
    "train, test, message",
    [
        ((3, 4), (2,), r"image 4, expected numbers 1\.\.3"),
        ((0, 1), (2,), r"image 0, expected numbers 1\.\.3"),
        ((1, 3), (3,), "image 3 is listed 2 times"),
        ((1, 1), (2,), "image 1 is listed 2 times"),
        ((1, 2), (), "an empty list"),
    ],
)
def test_splits_that_do_not_fit_are_named(copied, train, test, message):
    write_splits(copied, train, test)
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=rf"splits\.mat: .*{message}"):
            NYUv2Mat(copied, split)


def text(path):
    path.write_text("not a MATLAB file, but longer than the header of one would be: " + 200 * ".")


def cells(path):
    scipy.io.savemat(path, {name: np.array([["a", 1]], object) for name in ("trainNdxs", "testNdxs", "mapClass")})


def other(path):
    scipy.io.savemat(path, {"else": np.zeros(3)})


@pytest.mark.parametrize("name", ["splits.mat", "classMapping40.mat"])
@pytest.mark.parametrize("damage", [text, cells, other, lambda path: path.write_bytes(path.read_bytes()[:200])])
def test_a_small_file_that_is_not_what_it_should_be_is_named(copied, name, damage):
    damage(copied / name)
    with pytest.raises(ValueError, match=rf"{name}: "):
        NYUv2Mat(copied)


def test_a_class_beyond_40_is_named(copied):
    scipy.io.savemat(copied / "classMapping40.mat", {"mapClass": np.full((1, 894), 41, np.uint8)})
    with pytest.raises(ValueError, match=r"classMapping40\.mat: 'mapClass' holds values beyond 1\.\.40"):
        NYUv2Mat(copied)


def test_a_label_beyond_894_is_named(copied):
    change_array(copied, "labels", lambda array: array.__setitem__((1, 5, 5), 895))
    dataset = NYUv2Mat(copied, "val", {"segmentation": {}})
    with pytest.raises(ValueError, match=rf"{LABELED}: labels \[895\] in frame 1, allowed are 0\.\.894"):
        dataset[0]
