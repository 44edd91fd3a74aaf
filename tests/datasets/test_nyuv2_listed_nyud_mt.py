"""NYUD_MT in both flavours: stored values come out as written; lists, flavours, axes, crops and damage."""

import os
import pickle
import shutil

import numpy as np
import pytest
import scipy.io
from builders.nyu_other_files import BENCHMARK, frame, normal_picture, write_astmt, write_nyud_mt, write_picture
from builders.nyu_scene import scene
from torch.utils.data import DataLoader

from symerge_dense.datasets.class_names import NYU40_TO_13
from symerge_dense.datasets.nyuv2.listed import BENCHMARK_CROP, NYUDMT

TASKS = {"segmentation": {"classes": 40}, "edges": {}, "depth": {}, "normals": {}}
WRITERS = {"vandenhende": write_nyud_mt, "astmt": write_astmt}
SEGMENTATION = {"vandenhende": ".png", "astmt": ".mat"}
DEPTH = {"vandenhende": ".npy", "astmt": ".mat"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Both flavours, of cropped frames: train is scenes 1, 0, val is scene 2."""
    folder = tmp_path_factory.mktemp("nyud_mt")
    return {name: write(folder / name, cropped=True) for name, write in WRITERS.items()}


@pytest.fixture(params=list(WRITERS))
def flavour(request):
    return request.param


@pytest.fixture
def own(roots, flavour, tmp_path):
    """A root that the test may damage: links to the files, to be replaced and not written through."""
    return shutil.copytree(roots[flavour], tmp_path / flavour, copy_function=os.link)


def overwrite(path, content):
    path.unlink()
    path.write_bytes(content)


def angles(found, truth):
    """Degrees between unit vectors where both are valid."""
    both = found.any(-1) & truth.any(-1)
    return np.degrees(np.arccos(np.clip((found * truth).sum(-1)[both], -1, 1)))


# -- the numbers ------------------------------------------------------------------------------------------------------
def test_stored_values_come_out_as_written(roots, flavour):
    dataset = NYUDMT(roots[flavour], "train", TASKS)
    assert len(dataset) == 2 and dataset.packaging == "nyud_mt" and len(dataset.classes) == 40
    for index, number in enumerate((1, 0)):  # the order of the list, not of the names
        image, label, depth, normal = frame(number, cropped=True)
        assert np.abs(dataset.image(index).astype(int) - image).mean() < 3  # JPEG
        expected = np.where(label == 0, 255, label.astype(int) - 1)
        assert np.array_equal(dataset.target(index, "segmentation"), expected)
        assert dataset.target(index, "segmentation").dtype == np.int64
        assert np.array_equal(dataset.target(index, "depth"), depth)
        if flavour == "vandenhende":
            assert np.array_equal(dataset.target(index, "normals"), normal)


def test_jpeg_normals_are_near_and_unit(roots):
    found, truth = NYUDMT(roots["astmt"], "val", TASKS).target(0, "normals"), frame(2, cropped=True)[3]
    assert np.median(angles(found, truth)) < 1 and np.quantile(angles(found, truth), 0.99) < 8
    length = np.linalg.norm(found, axis=-1)
    assert np.abs(length[length > 0] - 1).max() < 1e-5
    assert (found.any(-1) == truth.any(-1)).mean() > 0.999


def test_thirteen_classes_and_edges_follow(roots, flavour):
    coarse = NYUDMT(roots[flavour], "val", {"segmentation": {"classes": 13}, "edges": {}})
    label = frame(2, cropped=True)[1]
    expected = np.where(label == 0, 255, np.array(NYU40_TO_13)[label.astype(int) - 1])
    assert np.array_equal(coarse.target(0, "segmentation"), expected)
    assert set(np.unique(coarse.target(0, "edges"))) == {0, 1, 255}
    assert np.array_equal(coarse.target(0, "edges") == 255, label == 0)


def test_sample_is_that_of_the_contract(roots, flavour):
    sample = NYUDMT(roots[flavour], "train", TASKS, size=(48, 64), augment={"flip": 1.0})[1]
    found = {name: (str(value.dtype), tuple(value.shape)) for name, value in sample.items() if name != "index"}
    assert found == {
        "image": ("torch.float32", (3, 48, 64)),
        "segmentation": ("torch.int64", (48, 64)),
        "edges": ("torch.float32", (1, 48, 64)),
        "depth": ("torch.float32", (1, 48, 64)),
        "normals": ("torch.float32", (3, 48, 64)),
    }


def test_whole_frames_and_the_crop_of_depth_papers(tmp_path, flavour):
    root = WRITERS[flavour](tmp_path, train=(), val=(0,))
    (root / "gt_sets" / "train.txt").write_text("")
    assert NYUDMT(root, "val").image(0).shape == (480, 640, 3)
    cut = NYUDMT(root, "val", {"depth": {}}, crop="eigen").target(0, "depth")
    assert np.array_equal(cut, scene(0).depth[45:471, 41:601])
    with pytest.raises(ValueError, match=r"train\.txt: there is no name"):
        NYUDMT(root, "train")


def test_cropped_frames_refuse_another_crop(roots, flavour):
    with pytest.raises(ValueError, match=r"crop='eigen' .* already cropped to 425 x 560; use crop='none'"):
        NYUDMT(roots[flavour], crop="eigen")


def test_normals_from_depth_know_where_the_crop_was(roots, flavour):
    dataset = NYUDMT(roots[flavour], "val", {"normals": {}}, normals="depth")
    found, truth = dataset.target(0, "normals"), frame(2, cropped=True)[3]
    assert dataset.folders == ["images", "depth"]
    assert angles(found, truth).size > 0.8 * truth.any(-1).sum()
    assert np.quantile(angles(found, truth), 0.9) < 0.05  # the camera of whole frames is degrees off


def test_the_benchmark_crop_is_the_one_the_files_were_cut_by():
    top, bottom, left, right = BENCHMARK_CROP
    assert (slice(top, bottom), slice(left, right)) == BENCHMARK and (bottom - top, right - left) == (425, 560)


def test_frames_of_unknown_size_have_no_camera(tmp_path):
    root = write_nyud_mt(tmp_path, train=(0,), val=())
    name = (root / "gt_sets" / "train.txt").read_text().strip()
    write_picture(root / "images" / f"{name}.jpg", scene(0).image[:400, :500])
    np.save(root / "normals" / f"{name}.npy", scene(0).normal[:400, :500])
    assert NYUDMT(root, "train", {"normals": {}}).target(0, "normals").shape == (400, 500, 3)
    with pytest.raises(ValueError, match=r"normals='depth' needs the camera.* these are 400 x 500; use normals='sto"):
        NYUDMT(root, "train", {"normals": {}}, normals="depth")


@pytest.mark.parametrize("axes", ["x,-y,z", "-z,x,-y"])
def test_normals_of_other_axes_are_turned(tmp_path, flavour, axes):
    root = WRITERS[flavour](tmp_path, train=(0,), val=(), cropped=True)
    name, normal = (root / "gt_sets" / "train.txt").read_text().strip(), frame(0, cropped=True)[3]
    camera = {"x": normal[..., 0], "z": normal[..., 1], "y": normal[..., 2]}
    turned = np.stack([camera[part[-1]] * (-1 if "-" in part else 1) for part in axes.split(",")], -1)
    if flavour == "vandenhende":
        np.save(root / "normals" / f"{name}.npy", turned)
    else:
        write_picture(root / "normals" / f"{name}.jpg", normal_picture(turned))
    found = NYUDMT(root, "train", {"normals": {}}, normal_axes=axes).target(0, "normals")
    assert np.array_equal(found, normal) if flavour == "vandenhende" else np.median(angles(found, normal)) < 1


def test_impossible_values_are_invalid(own, flavour):
    name = (own / "gt_sets" / "val.txt").read_text().strip()
    depth, normal = frame(2, cropped=True)[2].copy(), frame(2, cropped=True)[3].astype(np.float64)
    depth[100, 100:103] = np.nan, -1, np.inf
    normal[100, 100], normal[100, 101] = np.nan, 0.2
    path = own / "depth" / f"{name}{DEPTH[flavour]}"
    path.unlink()
    if flavour == "astmt":
        scipy.io.savemat(path, {"depth": depth.astype(np.float64)})
    else:
        np.save(path, depth[..., None])
        (own / "normals" / f"{name}.npy").unlink()
        np.save(own / "normals" / f"{name}.npy", normal)
    dataset = NYUDMT(own, "val", TASKS)
    assert not dataset.target(0, "depth")[100, 100:103].any() and dataset.target(0, "depth")[100, 103] > 0
    if flavour == "vandenhende":
        assert not dataset.target(0, "normals")[100, 100:102].any()
        assert np.array_equal(dataset.target(0, "normals")[200], frame(2, cropped=True)[3][200])


def test_manifest_files_are_the_list_and_what_is_read(roots, flavour):
    dataset = NYUDMT(roots[flavour], "train", {"depth": {}, "segmentation": {"classes": 40}})
    found = [path.relative_to(roots[flavour]).as_posix() for path in dataset.source_files]
    assert found == [
        "gt_sets/train.txt",
        "images/img_5002.jpg",
        "images/img_5001.jpg",
        f"depth/img_5002{DEPTH[flavour]}",
        f"depth/img_5001{DEPTH[flavour]}",
        f"segmentation/img_5002{SEGMENTATION[flavour]}",
        f"segmentation/img_5001{SEGMENTATION[flavour]}",
    ]


def test_workers_and_pickle(roots, flavour):
    dataset = NYUDMT(roots[flavour], "train", {"depth": {}}, size=(48, 64))
    plain = [sample["depth"] for sample in pickle.loads(pickle.dumps(dataset))]
    loaded = [batch["depth"][0] for batch in DataLoader(dataset, num_workers=2, sampler=range(2))]
    assert all(np.array_equal(one, other) for one, other in zip(plain, loaded, strict=True))


# -- lists and flavours -----------------------------------------------------------------------------------------------
def test_folders_of_other_tasks_may_be_missing(own):
    shutil.rmtree(own / "normals")
    assert NYUDMT(own, "val", {"depth": {}}).target(0, "depth").shape == (425, 560)
    with pytest.raises(ValueError, match=r"no known packaging: found .*normals/img_5003 nothing"):
        NYUDMT(own, "val", TASKS)


@pytest.mark.parametrize("folder", ["images", "segmentation", "depth", "normals"])
def test_a_listed_file_that_is_missing_is_named(own, folder):
    path = next((own / folder).glob("img_5001.*"))  # the second of the list
    path.unlink()
    with pytest.raises(ValueError, match=rf"{folder}/{path.name}: missing, one of 1 in this folder that gt_sets/train"):
        NYUDMT(own, "train", TASKS)
    assert len(NYUDMT(own, "val", TASKS)) == 1


def test_two_flavours_in_one_folder_are_refused(roots, tmp_path):
    both = shutil.copytree(roots["astmt"], tmp_path / "both")
    shutil.copytree(roots["vandenhende"], both, dirs_exist_ok=True)
    with pytest.raises(
        ValueError,
        match=r"two flavours are mixed: found images/img_5002\.jpg, depth/img_5002\.mat\|"
        r"\.npy.*(.|\n)*Vandenhende's: .*(.|\n)*ASTMT's: ",
    ):
        NYUDMT(both, "train", TASKS)


def test_half_of_each_flavour_is_no_packaging(roots, tmp_path):
    half = shutil.copytree(roots["astmt"], tmp_path / "half")
    shutil.rmtree(half / "depth")
    shutil.copytree(roots["vandenhende"] / "depth", half / "depth")
    with pytest.raises(ValueError, match=r"no known packaging: .*depth/img_5002\.npy.*segmentation/img_5002\.mat"):
        NYUDMT(half, "train", TASKS)
    assert len(NYUDMT(half, "train", {"depth": {}})) == 2  # what is asked for is of one flavour


def test_nothing_there_says_what_is_expected(tmp_path):
    (tmp_path / "something").mkdir()
    for root, inside in ((tmp_path / "nowhere", "nothing"), (tmp_path, "something")):
        with pytest.raises(
            ValueError,
            match=rf"train\.txt: no readable list.* holds {inside}\. Expected are gt_sets/"
            r"(.|\n)*segmentation/\*\.png(.|\n)*segmentation/\*\.mat",
        ):
            NYUDMT(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("../images/img_5001\n", "'../images/img_5001' is no file name"),
        ("/etc/passwd\n", "'/etc/passwd' is no file"),
        (".hidden\n", "'.hidden' is no file name"),
        ("img_5001\nimg_5001\n", "names are repeated"),
        ("\n \n", "there is no name"),
    ],
)
def test_a_list_that_is_none_is_named(own, text, message):
    overwrite(own / "gt_sets" / "train.txt", text.encode())
    with pytest.raises(ValueError, match=rf"gt_sets/train\.txt: {message}"):
        NYUDMT(own)


def test_a_list_of_bytes_is_named(own):
    overwrite(own / "gt_sets" / "train.txt", b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"train\.txt: no readable list"):
        NYUDMT(own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "'train' and 'val'"),
        ({"crop": "center"}, "crop='center'"),
        ({"normals": "x"}, "normals='x'"),
        ({"normal_axes": "x,y"}, "normal_axes='x,y'"),
        ({"tasks": {"segmentation": {"classes": 12}}}, "13 or 40"),
        ({"tasks": {"albedo": {}}}, "unknown target 'albedo'"),
    ],
)
def test_bad_arguments(roots, arguments, message):
    with pytest.raises(ValueError, match=message):
        NYUDMT(roots["astmt"], **arguments)


# -- damage -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text" * 99],
    ids=["half", "empty", "text"],
)
@pytest.mark.parametrize("folder", ["images", "segmentation", "depth", "normals"])
def test_a_damaged_file_is_named(own, folder, damage):
    path = next((own / folder).glob("img_5001.*"))
    overwrite(path, damage(path.read_bytes()))
    dataset = NYUDMT(own, "train", TASKS)
    with pytest.raises(ValueError, match=rf"{folder}/{path.name}: .*fetch this file again"):
        dataset.image(1) if folder == "images" else dataset.target(1, folder)
    assert dataset[0]["index"] == 0


@pytest.mark.parametrize("folder", ["images", "segmentation", "depth", "normals"])
def test_a_file_of_another_size_is_named(own, roots, flavour, folder):
    path = next((own / folder).glob("img_5001.*"))
    whole = scene(0)
    content = dict(
        zip(
            ("images", "segmentation", "depth", "normals"),
            (whole.image, whole.label40, whole.depth, whole.normal),
            strict=True,
        )
    )[folder]
    path.unlink()
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {folder: content})
    else:
        write_picture(path, normal_picture(content) if folder == "normals" else content)
    dataset = NYUDMT(own, "train", TASKS)
    with pytest.raises(ValueError, match=rf"{folder}/{path.name}: shape \(480, 640.*expected \(425, 560.*first image"):
        dataset.image(1) if folder == "images" else dataset.target(1, folder)


def test_labels_beyond_40_are_named(own, flavour):
    path = next((own / "segmentation").glob("img_5003.*"))
    label = frame(2, cropped=True)[1].copy()
    label[3, 4] = 41
    path.unlink()
    if flavour == "astmt":
        scipy.io.savemat(path, {"segmentation": label})
    else:
        write_picture(path, label)
    with pytest.raises(ValueError, match=rf"{path.name}: label values \[41\], allowed are 1\.\.40, and 0 for void"):
        NYUDMT(own, "val", TASKS).target(0, "segmentation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((425, 560), np.uint16), "uint16, expected metres in floating point"),
        (np.full((425, 560), np.nan), "some of them finite"),
    ],
)
def test_depth_that_is_not_in_metres_is_named(own, flavour, content, message):
    path = next((own / "depth").glob("img_5003.*"))
    path.unlink()
    if flavour == "astmt":
        scipy.io.savemat(path, {"depth": content})
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=rf"{path.name}: .*{message}"):
        NYUDMT(own, "val", TASKS).target(0, "depth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": np.zeros((2, 2))}, "holds labels, expected 'segmentation'"),
        ({}, "holds nothing, expected"),
        ({"segmentation": "text"}, "expected numbers"),
        ({"segmentation": np.array([[{"a": 1}]], object)}, "expected numbers"),
    ],
)
def test_a_mat_file_of_something_else_is_named(roots, tmp_path, content, message):
    root = shutil.copytree(roots["astmt"], tmp_path / "astmt")
    scipy.io.savemat(root / "segmentation" / "img_5003.mat", content)
    with pytest.raises(ValueError, match=rf"img_5003\.mat: .*{message}"):
        NYUDMT(root, "val", TASKS).target(0, "segmentation")


def test_pickled_arrays_are_refused(roots, tmp_path):
    root = shutil.copytree(roots["vandenhende"], tmp_path / "own")
    np.save(root / "normals" / "img_5003.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"normals/img_5003\.npy: not a readable \.npy array of numbers"):
        NYUDMT(root, "val", TASKS).target(0, "normals")
