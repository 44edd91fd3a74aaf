"""Photos with label files: every format gives the values that were written, every mismatch names file and remedy."""

from __future__ import annotations

import shutil

import cv2
import h5py
import numpy as np
import OpenEXR
import pytest
import torch
from builders.photos import cut_off, labels, write_hidden_files, write_labelled_photos, write_photos, write_rotated
from PIL import Image

from symerge_dense.datasets import folder_dataset
from symerge_dense.datasets.folder_dataset import FolderDataset
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.registry import DATASETS, TASKS

SIZE = (48, 64)
SEGMENTATION = {"segmentation": {"type": "segmentation", "classes": 4}}
DEPTH = {"depth": {"type": "depth"}}
TARGETS = {
    "segmentation": "masks/{}.png",
    "depth": {"path": "depth/{}.png", "scale": 1e-3},
    "shading": {"path": "saliency/{}.png", "scale": 1 / 255},
}


@pytest.fixture
def root(tmp_path):
    return write_labelled_photos(tmp_path / "data")


def folder(root, tasks=(), targets=None, **options):
    return FolderDataset(root, "photos/*.jpg", TARGETS if targets is None else targets, tasks=dict(tasks), **options)


def test_photos_with_masks_depth_and_shading(root):
    data = DATASETS.build(
        {
            "type": "FolderDataset",
            "root": str(root),
            "images": "photos/*.jpg",
            "targets": TARGETS,
            "tasks": {**SEGMENTATION, **DEPTH, "shading": {"type": "shading"}},
        }
    )
    assert len(data) == 4 and data.classes == ("class 0", "class 1", "class 2", "class 3")
    for index in range(4):
        sample, wanted = data[index], labels(index)
        assert sample["image"].shape == (3, *SIZE)
        np.testing.assert_array_equal(sample["segmentation"], wanted["segmentation"])
        np.testing.assert_allclose(sample["depth"][0], wanted["depth"], rtol=1e-6)
        np.testing.assert_allclose(sample["shading"][0], wanted["saliency"], atol=1e-6)
    data.check_images()


def test_without_tasks_no_label_is_opened(root):
    for name in ("masks", "depth", "saliency"):
        shutil.rmtree(root / name)
    assert len(Unlabelled(folder(root))) == 4


# -- formats ----------------------------------------------------------------------------------------------------------
def test_an_image_is_opened_once_per_sample(root, monkeypatch):
    data = folder(root, {**SEGMENTATION, **DEPTH})
    real, opened = folder_dataset.image_size, []
    monkeypatch.setattr(folder_dataset, "image_size", lambda path: (opened.append(path), real(path))[1])
    wanted = [folder(root, DEPTH)[index]["depth"] for index in range(4)]
    assert opened == []  # the decoded image says its size
    for index in (2, 2, 0):
        for name in data.tasks:
            data.resized_target(index, name)
    assert [path.stem for path in opened] == ["0002", "0000"]
    assert all(torch.equal(data[index]["depth"], wanted[index]) for index in (1, 0, 3, 2))


def test_a_target_without_its_task_builds_that_task_once(root, monkeypatch):
    data, built, real = folder(root), [], TASKS["depth"].__init__
    wanted = [folder(root, DEPTH).target(index, "depth") for index in range(2)]
    monkeypatch.setattr(TASKS["depth"], "__init__", lambda self: (built.append(self), real(self))[1])
    for index in range(2):
        np.testing.assert_array_equal(data.target(index, "depth"), wanted[index])
    assert len(built) == 1


def write_depth(path, metres, kind):
    key = None
    if kind == "npz":
        np.savez(path, depth=metres, other=metres + 1)
        key = "depth"
    elif kind == "npy":
        np.save(path, metres)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["maps/depth"], file["maps/other"] = metres, metres + 1
        key = "maps/depth"
    elif kind == "exr":
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z": metres, "RGB": np.dstack([metres + 1] * 3)}).write(str(path))
        key = "Z"
    else:
        cv2.imwrite(str(path), metres)
    return key


@pytest.mark.parametrize("kind", ["npz", "npy", "h5", "exr", "tif", "tiff"])
def test_float_depth_in_every_container(tmp_path, kind):
    write_photos(tmp_path / "photos", 1)
    metres = labels(0)["depth"].astype(np.float32)
    metres[5, 5] = np.nan
    key = write_depth(tmp_path / f"0000.{kind}", metres, kind)
    found = folder(tmp_path, DEPTH, {"depth": {"path": f"{{}}.{kind}", "key": key}})
    np.testing.assert_array_equal(found.target(0, "depth"), np.nan_to_num(metres))  # NaN is no label: 0
    if key:
        with pytest.raises(ValueError, match=rf"0000\.{kind}: holds .*give key= one"):
            folder(tmp_path, DEPTH, {"depth": f"{{}}.{kind}"})[0]
        with pytest.raises(ValueError, match=rf"0000\.{kind}: holds .*(Z|depth).*no 'dpt': give key= one"):
            folder(tmp_path, DEPTH, {"depth": {"path": f"{{}}.{kind}", "key": "dpt"}})[0]


def test_one_file_for_all_images(tmp_path):
    write_photos(tmp_path / "photos", 2)
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        for index in range(2):
            file[f"depth/{index:04d}"] = labels(index)["depth"].astype(np.float32)
    data = folder(tmp_path, DEPTH, {"depth": {"path": "labels.h5", "key": "depth/{}"}})
    np.testing.assert_allclose(data[1]["depth"][0], labels(1)["depth"], rtol=1e-6)


def test_a_channel_of_exr_colours(tmp_path):
    write_photos(tmp_path / "photos", 1)
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[..., 1] = 1
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": normals}).write(str(tmp_path / "0000.exr"))
    data = folder(tmp_path, {"normals": {"type": "normals"}}, {"normals": "{}.exr"})
    np.testing.assert_array_equal(data.target(0, "normals"), normals)
    data = folder(tmp_path, DEPTH, {"depth": {"path": "{}.exr", "key": "G"}})
    np.testing.assert_array_equal(data.target(0, "depth"), normals[..., 1])
    with pytest.raises(
        ValueError, match="has 3 channels, the task 'depth' takes 1; save it with 1, or name one by key="
    ):
        folder(tmp_path, DEPTH, {"depth": "{}.exr"})[0]


@pytest.mark.parametrize("mode", ["palette", "grey", "16 bit", "three equal channels", "with alpha", "npy", "tif"])
def test_class_numbers_however_they_are_saved(tmp_path, mode):
    write_photos(tmp_path / "photos", 1)
    ids = labels(0)["segmentation"]
    path = tmp_path / f"0000.{mode if mode in ('npy', 'tif') else 'png'}"
    if mode == "palette":
        image = Image.fromarray(ids, "P")
        image.putpalette(bytes(range(255, -1, -1)) * 3)
        image.save(path)
    elif mode == "npy":
        np.save(path, ids.astype(np.float32))  # as MTAN's
    else:
        stacks = {"three equal channels": [ids] * 3, "with alpha": [*[ids] * 3, np.full_like(ids, 255)]}
        cv2.imwrite(
            str(path), np.dstack(stacks[mode]) if mode in stacks else ids.astype("u2" if "16" in mode else "u1")
        )
    data = folder(tmp_path, SEGMENTATION, {"segmentation": f"{{}}{path.suffix}"})
    np.testing.assert_array_equal(data[0]["segmentation"], ids)


def test_one_bit_masks(tmp_path):
    write_photos(tmp_path / "photos", 1)
    mask = labels(0)["depth"] > 2
    Image.fromarray(mask).save(tmp_path / "0000.png")
    data = folder(tmp_path, {"edges": {"type": "edges"}}, {"edges": "{}.png", "segmentation": "{}.png"})
    np.testing.assert_array_equal(data[0]["edges"][0], mask)
    two = folder(tmp_path, {"segmentation": {"type": "segmentation", "classes": 2}}, {"segmentation": "{}.png"})
    np.testing.assert_array_equal(two[0]["segmentation"], mask)


def test_map_and_invalid(root):
    stored = {0: 7, 1: 21, 2: 33, 3: 8, 255: 99}
    for index in range(4):
        ids = np.vectorize(stored.get)(labels(index)["segmentation"]).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / f"{index:04d}.png"), ids)
    spec = {"path": "masks/{}.png", "map": {7: 0, 21: 1, 33: 2, 8: None, 99: None}}
    found = folder(root, SEGMENTATION, {"segmentation": spec})[2]["segmentation"].numpy()
    wanted = labels(2)["segmentation"]
    np.testing.assert_array_equal(found, np.where(wanted == 3, 255, wanted))
    spec = {"path": "masks/{}.png", "map": {7: 0, 21: 1, 33: 2, 8: 3}, "invalid": 99}
    np.testing.assert_array_equal(folder(root, SEGMENTATION, {"segmentation": spec})[2]["segmentation"], wanted)
    spec = {"path": "masks/{}.png", "map": {7: 0, 21: 1, 33: 2}}
    with pytest.raises(
        ValueError, match=r"0000\.png: holds 8, 99, which map= does not have; add 8: <class>, or 8: None"
    ):
        folder(root, SEGMENTATION, {"segmentation": spec})[0]
    with pytest.raises(ValueError, match=r"0000\.png is a class map with 7, 8, 21, 33, 99: allowed are 0\.\.3.*map="):
        folder(root, SEGMENTATION)[0]


def test_several_numbers_and_nan_mean_no_label(tmp_path):
    write_photos(tmp_path / "photos", 1)
    metres = np.full(SIZE, 2, np.float32)
    metres[0], metres[1], metres[2] = -99, 77, np.inf
    np.save(tmp_path / "0000.npy", metres)
    found = folder(tmp_path, DEPTH, {"depth": {"path": "{}.npy", "invalid": [77, -99]}}).target(0, "depth")
    assert (found[:3] == 0).all() and (found[3:] == 2).all()


@pytest.mark.parametrize("name", ["segmentation", "depth", "normals", "edges", "albedo", "shading"])
def test_what_a_task_stores_is_read_back(tmp_path, name):
    write_photos(tmp_path / "photos", 1)
    task, rng = TASKS[name](), torch.Generator().manual_seed(0)
    output = torch.rand((1, task.channels, *SIZE), generator=rng) * 4 - (2 if name in ("normals", "edges") else 0)
    stored = task.storage.encode(
        task.decide(output)[0], torch.ones(SIZE, dtype=torch.bool).index_fill_(0, torch.tensor([0]), False)
    )
    cv2.imwrite(str(tmp_path / "0000.png"), stored[..., ::-1] if stored.ndim == 3 else stored)
    rule = task.storage
    spec = {"path": "{}.png", "scale": rule.scale, "offset": rule.offset, "invalid": rule.invalid}
    found = folder(tmp_path, {name: task}, {name: spec})
    np.testing.assert_array_equal(found.target(0, name), rule.decode(stored))
    assert not task.valid(found[0][name][None])[0, 0].any() and task.valid(found[0][name][None])[0, 1:].all()


# -- what does not fit ------------------------------------------------------------------------------------------------
def test_whole_numbers_without_a_scale(root):
    top = cv2.imread(str(root / "depth/0000.png"), cv2.IMREAD_UNCHANGED).max()
    with pytest.raises(ValueError, match=rf"depth/0000\.png is uint16 with values up to {top}; give scale=1e-3 if"):
        folder(root, DEPTH, {"depth": "depth/{}.png"})[0]
    with pytest.raises(ValueError, match=r"saliency/0000\.png is uint8 with values up to 255; give scale=1/255 if"):
        folder(root, {"shading": {"type": "shading"}}, {"shading": "saliency/{}.png"})[0]
    with pytest.raises(ValueError, match=r"depth/0000\.png is [0-9.]+ m in the median, above 100 m.*scale=1e-3"):
        folder(root, DEPTH, {"depth": {"path": "depth/{}.png", "scale": 1}})[0]
    with pytest.raises(ValueError, match=r"saliency/0000\.png is .*values must be in 0\.\.1.*scale=1/255"):
        folder(root, {"edges": {"type": "edges"}}, {"edges": {"path": "saliency/{}.png", "scale": 1}})[0]


def test_labels_of_another_frame_or_resolution(root):
    for size, path in (((24, 32), "masks/0000.png"), ((96, 128), "depth/0000.png")):
        stored = cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED)
        if path.startswith("masks"):
            stored = labels(0)["segmentation"]
        cv2.imwrite(str(root / path), cv2.resize(stored, size[::-1], interpolation=cv2.INTER_NEAREST))
    sample = folder(root, {**SEGMENTATION, **DEPTH})[0]  # one frame: brought to the image
    np.testing.assert_array_equal(sample["segmentation"], labels(0)["segmentation"])
    np.testing.assert_allclose(sample["depth"][0], labels(0)["depth"], rtol=1e-6)
    assert folder(root, SEGMENTATION, size=(24, 32))[0]["segmentation"].shape == (24, 32)
    cv2.imwrite(str(root / "masks/0001.png"), np.zeros((48, 48), np.uint8))
    with pytest.raises(
        ValueError, match=r"0001\.png is 48 x 48 pixels .*0001\.jpg is 48 x 64; cut or export the label"
    ):
        folder(root, SEGMENTATION, size=(24, 32))[1]
    write_rotated(root / "photos/0002.jpg", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0002\.png is 48 x 64 .*0002\.jpg is 64 x 48; .*EXIF.*turn the label"):
        folder(root, SEGMENTATION)[2]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
@pytest.mark.parametrize("name", ["segmentation", "depth", "shading"])
def test_lossy_label_files_are_refused_for_every_task(root, name, suffix):
    write_photos(root / "labels", 4, suffix=suffix)
    task = {**SEGMENTATION, **DEPTH, "shading": {"type": "shading"}}[name]
    spec = f"labels/{{}}{suffix}" if name == "segmentation" else {"path": f"labels/{{}}{suffix}", "scale": 1}
    with pytest.raises(ValueError, match=rf"0000{suffix}: {suffix} files change the numbers .* as PNG, TIFF or \.npy"):
        folder(root, {name: task}, {name: spec})[0]


def test_negative_depth_is_refused_and_a_marker_is_not(root):
    metres = np.random.default_rng(0).uniform(1, 5, SIZE).astype(np.float32)
    np.save(root / "0000.npy", -metres)
    one = {"tasks": DEPTH, "split": "0%:25%"}
    with pytest.raises(ValueError, match=r"0000\.npy is negative in 100% of its pixels.*scale=-1"):
        folder(root, targets={"depth": "{}.npy"}, **one)[0]
    turned = folder(root, targets={"depth": {"path": "{}.npy", "scale": -1}}, **one)[0]["depth"][0]
    np.testing.assert_array_equal(turned, metres)
    np.save(root / "0000.npy", np.where(metres > 3, -1, metres))
    np.testing.assert_array_equal(
        folder(root, targets={"depth": "{}.npy"}, **one)[0]["depth"][0], np.where(metres > 3, 0, metres)
    )


def test_colours_and_fractions_are_no_class_numbers(root):
    cv2.imwrite(str(root / "masks/0000.png"), np.random.default_rng(0).integers(0, 4, (*SIZE, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"0000\.png: has 3 channels, a class map takes 1; save it as a grey or palette"
    ):
        folder(root, SEGMENTATION)[0]
    np.save(root / "0000.npy", np.full(SIZE, 0.5))
    with pytest.raises(ValueError, match=r"0000\.npy: holds float64 with fractions"):
        folder(root, SEGMENTATION, {"segmentation": "{}.npy"}, split="0%:25%")[0]
    np.save(root / "0000.npy", np.zeros((1, *SIZE)))
    with pytest.raises(ValueError, match=r"shape \(1, 48, 64\), but channels come last; save it as \(H, W, 1\)"):
        folder(root, DEPTH, {"depth": "{}.npy"}, split="0%:25%")[0]
    with pytest.raises(ValueError, match=r"class numbers take no scale or offset; give map="):
        folder(root, SEGMENTATION, {"segmentation": {"path": "masks/{}.png", "scale": 2}})[1]


@pytest.mark.parametrize("suffix", ["png", "npy", "npz", "h5", "exr", "tif"])
def test_broken_label_files_are_named(tmp_path, suffix):
    write_photos(tmp_path / "photos", 1)
    path = tmp_path / f"0000.{suffix}"
    metres = np.random.default_rng(0).uniform(1, 5, SIZE).astype(np.float32)
    write_depth(path, (metres * 1000).astype(np.uint16) if suffix == "png" else metres, suffix)
    for damage in (lambda: cut_off(path), lambda: path.write_bytes(b""), lambda: path.write_bytes(b"<html>")):
        damage()
        with pytest.raises(ValueError, match=rf"0000\.{suffix}: not a readable (label file|picture).*replace it"):
            folder(tmp_path, DEPTH, {"depth": {"path": f"{{}}.{suffix}", "scale": 1e-3}})[0]


def test_pickled_labels_are_not_loaded(tmp_path):
    write_photos(tmp_path / "photos", 1)
    np.save(tmp_path / "0000.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"0000\.npy: not a readable label file"):
        folder(tmp_path, DEPTH, {"depth": "{}.npy"})[0]


def test_missing_label_files_are_found_at_once(root):
    for index in (1, 3):
        (root / "depth" / f"{index:04d}.png").unlink()
    assert len(folder(root, SEGMENTATION)) == 4
    with pytest.raises(
        ValueError, match=r"2 of 4 images have no label file for 'depth'.*\n.*0001\.jpg has no .*depth/0001"
    ):
        folder(root, DEPTH)


# -- patterns and splits ----------------------------------------------------------------------------------------------
def test_no_image_shows_what_is_there(root):
    with pytest.raises(ValueError, match=r"photo/\*\.jpg: matches nothing; .*data holds depth/, masks/, photos/"):
        FolderDataset(root, "photo/*.jpg")
    with pytest.raises(ValueError, match=r"photos holds 0000\.jpg, .*4 \.jpg files"):
        FolderDataset(root, "photos/*.JPG")
    (root / "photos/notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"matches notes\.txt but no image"):
        FolderDataset(root, "photos/*.txt")
    with pytest.raises(ValueError, match="no such folder; give root="):
        FolderDataset(root / "none")
    with pytest.raises(ValueError, match="a pattern under root="):
        FolderDataset(root, "../*.jpg")


def test_what_stands_for_the_name(tmp_path):
    for scene in ("a", "b"):
        write_photos(tmp_path / scene / "rgb", 2, suffix=".png")
        for index in range(2):
            (tmp_path / scene / "z").mkdir(exist_ok=True)
            np.save(tmp_path / scene / "z" / f"{index:04d}.npy", np.full(SIZE, 1 + index + 5 * (scene == "b"), "f4"))
    every = FolderDataset(tmp_path, "*/rgb/*.png", {"depth": "{}/z/{}.npy"}, tasks=DEPTH)
    assert [float(sample["depth"].max()) for sample in every] == [1, 2, 6, 7]
    assert [image.name for image in every.found] == ["a/rgb/0000", "a/rgb/0001", "b/rgb/0000", "b/rgb/0001"]
    deep = FolderDataset(tmp_path, "**/*.png")
    assert [image.name for image in deep.found] == [image.name for image in every.found]
    assert [image.name for image in FolderDataset(tmp_path, "a/rgb").found] == ["0000", "0001"]
    with pytest.raises(ValueError, match=r"has 2 \{\}, the images' pattern 1 wildcards"):
        FolderDataset(tmp_path, "a/rgb/*.png", {"depth": "{}/{}.npy"}, tasks=DEPTH)


def test_labels_beside_their_images(tmp_path):
    write_photos(tmp_path, 2, suffix=".png")
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index:04d}_mask.png"), labels(index)["segmentation"])
    write_hidden_files(tmp_path, like=".png")
    data = FolderDataset(tmp_path, "*.png", {"segmentation": "{}_mask.png"}, tasks=SEGMENTATION)
    assert [image.name for image in data.found] == ["0000", "0001"]
    np.testing.assert_array_equal(data[1]["segmentation"], labels(1)["segmentation"])
    shutil.copy(tmp_path / "0001.png", tmp_path / "0001.bmp")
    with pytest.raises(ValueError, match=r"0001\.bmp and .*0001\.png have one name, '0001'; rename one"):
        FolderDataset(tmp_path, "*", {"segmentation": "{}_mask.png"}, tasks=SEGMENTATION)


def test_splits(root):
    def names(**options):
        return [image.name for image in folder(root, **options).found]

    assert names(split=("0%", "50%")) == names(split="0%:50%") == ["0000", "0001"]
    assert names(split="50%:100%") == ["0002", "0003"]
    (root / "splits").mkdir()
    (root / "splits/val.txt").write_text("# held out\n0003\n\n0001.jpg\n")
    (root / "mine.lst").write_text("photos/0002.jpg\r\n")
    assert names(split="val") == ["0003", "0001"] and names(split="mine.lst") == ["0002"]
    (root / "splits/bad.txt").write_text("0001\n0009\n")
    with pytest.raises(
        ValueError, match=r"bad\.txt, line 2: '0009' names none of the 4 images; write names such as '0000'"
    ):
        names(split="bad")
    (root / "splits/bad.txt").write_text("0001\nphotos/0001.jpg\n")
    with pytest.raises(ValueError, match=r"line 2: .*listed twice"):
        names(split="bad")
    for wrong, message in (
        ("test", r"splits/test\.txt.*shares such as"),
        ("90%:20%", "two rising shares"),
        ("0%:1%", "no image"),
    ):
        with pytest.raises(ValueError, match=message):
            names(split=wrong)


def test_split_as_a_folder(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        write_labelled_photos(tmp_path / split, count)
    spec = {"images": "{split}/photos/*.jpg", "targets": {"segmentation": "{split}/masks/{}.png"}}
    assert [len(FolderDataset(tmp_path, split=split, tasks=SEGMENTATION, **spec)) for split in ("train", "val")] == [
        2,
        1,
    ]
    with pytest.raises(ValueError, match=r"the patterns have \{split\}, but split=None; give it the name of a folder"):
        FolderDataset(tmp_path, **spec)
    with pytest.raises(ValueError, match=r"test/photos/\*\.jpg: matches nothing; .* holds train/, val/"):
        FolderDataset(tmp_path, split="test", **spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"pth": "a"}, "unknown key 'pth'. Did you mean 'path'"),
        ({"scale": 1}, "targets\\['depth'\\] has no path"),
        (3, "targets\\['depth'\\] is 3; give a path"),
        ("depth.png", "put {} where the image's name belongs"),
        ({"path": "{}.png", "scale": "1/1000"}, "scale='1/1000': give a number"),
        ({"path": "{}.png", "scale": 0}, "scale=0: give a number"),
        ({"path": "{}.png", "map": {"a": 1}}, "a dict {stored number: class} of whole numbers"),
        ({"path": "{}.png", "invalid": "255"}, "invalid='255': give a stored number"),
        ("depth/{}.pfm", "labels are read from .png"),
    ],
)
def test_wrong_specs(root, spec, message):
    (root / "depth/0000.pfm").write_bytes(b"Pf")
    with pytest.raises(ValueError, match=message):
        folder(root, DEPTH, {"depth": spec}, split="0%:25%")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ["a.jpg"]}, "images=.*give a pattern such as"),
        ({"targets": ["depth"]}, "targets=.*a dict {task: pattern or dict}"),
        ({"split": 0.8}, "split=0.8: give the name of a list, or shares such as"),
        ({"targets": {"depth": {"path": "{}.h5", "key": 3}}}, "key=3: give the name of an array"),
        ({"targets": {"depth": {"path": "all.h5", "key": 3}}}, "key=3: give the name of an array"),
    ],
)
def test_arguments_of_another_kind(root, options, message):
    with pytest.raises(ValueError, match=message):
        FolderDataset(root, **{"images": "photos/*.jpg", **options})


def test_a_task_that_is_not_served(root):
    with pytest.raises(ValueError, match="FolderDataset: unknown target 'normals'"):
        folder(root, {"normals": {"type": "normals"}})
