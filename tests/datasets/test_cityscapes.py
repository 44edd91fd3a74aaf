"""Cityscapes in MTAN's packaging: label folders, inverse depth under zoom, an error with a remedy for bad input."""

from functools import partial

import numpy as np
import pytest

from symerge_dense.datasets.cityscapes import Cityscapes
from symerge_dense.datasets.class_names import CITYSCAPES7, CITYSCAPES19
from symerge_dense.datasets.transforms import Augment, View
from symerge_dense.tasks.inverse_depth import InverseDepth
from symerge_dense.tasks.segmentation import Segmentation

SIZE, COUNT = (8, 16), 12


def content(index, classes=7):
    """Image, label, inverse depth of one number, as documented; different for every index."""
    rng = np.random.default_rng(index)
    depth = rng.integers(1, 32258, (*SIZE, 1)) / 65535
    depth[rng.random((*SIZE, 1)) < 0.3] = 0
    return {"image": rng.integers(0, 256, (*SIZE, 3)) / 255, "label": rng.integers(-1, classes, SIZE), "depth": depth}


def write(root, classes=7, folder=None, dtype=np.float64, count=3, split="train"):
    for index in range(count):
        for part, array in content(index, classes).items():
            name = folder or f"label_{classes}" if part == "label" else part
            (root / split / name).mkdir(parents=True, exist_ok=True)
            np.save(root / split / name / f"{index}.npy", array.astype(dtype))
    return root


def rules(classes=7):
    return {"segmentation": Segmentation(classes), "inverse_depth": InverseDepth()}


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "cityscapes")


# -- reading -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("folder", [None, "label"])
@pytest.mark.parametrize(("classes", "names"), [(7, CITYSCAPES7), (19, CITYSCAPES19), (2, None)])
def test_what_was_written_is_read(tmp_path, dtype, folder, classes, names):
    dataset = Cityscapes(write(tmp_path, classes, folder, dtype, COUNT, "val"), "val", rules(classes))
    assert len(dataset) == COUNT and dataset.classes == names
    for index in (0, 2, 11):  # 11 sorts before 2 as text
        stored, sample = content(index, classes), dataset[index]
        assert set(sample) == {"image", "segmentation", "inverse_depth", "index"} and sample["index"] == index
        np.testing.assert_allclose(sample["image"].numpy(), stored["image"].transpose(2, 0, 1) * 255, atol=1e-3)
        np.testing.assert_array_equal(sample["segmentation"], np.where(stored["label"] < 0, 255, stored["label"]))
        np.testing.assert_array_equal(sample["inverse_depth"], stored["depth"].transpose(2, 0, 1).astype(np.float32))


def test_tensors_have_the_types_of_the_contract(root):
    sample = Cityscapes(root, tasks=rules())[0]
    layout = {name: (str(value.dtype), tuple(value.shape)) for name, value in sample.items() if name != "index"}
    assert layout == {
        "image": ("torch.float32", (3, *SIZE)),
        "segmentation": ("torch.int64", SIZE),
        "inverse_depth": ("torch.float32", (1, *SIZE)),
    }


def test_depth_may_lack_its_channel_axis_and_hold_values_that_mean_nothing(root):
    depth = content(0)["depth"][..., 0]
    depth[0, :4] = np.nan, np.inf, -np.inf, -0.1
    np.save(root / "train" / "depth" / "0.npy", depth)
    sample = Cityscapes(root, tasks=rules())[0]["inverse_depth"]
    expected = np.where(np.arange(SIZE[1]) < 4, 0, depth[0])
    np.testing.assert_array_equal(sample[0, 0], expected.astype(np.float32))
    np.testing.assert_array_equal(InverseDepth().valid(sample[None])[0, 0], expected > 0)


def test_the_folder_of_the_number_of_classes_comes_first(root):
    write(root, 19)
    write(root, 2, "label")
    for classes in (7, 19, 2):
        segmentation = Cityscapes(root, tasks=rules(classes))[1]["segmentation"]
        expected = content(1, classes)["label"]
        np.testing.assert_array_equal(segmentation, np.where(expected < 0, 255, expected))


def test_images_and_inverse_depth_need_no_labels(tmp_path):
    root = write(tmp_path, folder="elsewhere")
    assert set(Cityscapes(root, tasks={"inverse_depth": {"type": "inverse_depth"}})[0]) == {
        "image",
        "inverse_depth",
        "index",
    }


def test_one_split_is_enough(tmp_path):
    root = write(tmp_path, split="val")
    assert len(Cityscapes(root, "val", rules())) == 3
    with pytest.raises(ValueError, match=r"train is not there"):
        Cityscapes(root, "train")


# -- geometry ----------------------------------------------------------------------------------------------------------
def plain(scale=1.0, mirrored=False):
    return View(mirrored, scale, 0.0, 0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("protocol", ["default", "mtan"])
def test_a_zoom_brings_the_scene_nearer(root, protocol):
    dataset = Cityscapes(root, tasks=rules())
    arrays = {"image": dataset.image(0), **{name: dataset.target(0, name) for name in dataset.tasks}}
    view = partial(Augment(protocol=protocol).apply, arrays, dataset.tasks)
    stored = arrays["inverse_depth"]
    seen = view(plain(2.0))["inverse_depth"]
    np.testing.assert_array_equal(seen, 2 * stored[:4, :8].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(view(plain(2.0, mirrored=True))["inverse_depth"], seen[:, ::-1])
    np.testing.assert_array_equal(view(plain(mirrored=True))["inverse_depth"], stored[:, ::-1])
    assert seen.dtype == np.float32 and (seen == 0).any()


def test_augmentation_acts_on_depth_as_the_inverse_of_inverse_depth(root):
    augmented = Cityscapes(root, tasks=rules(), augment={"flip": 0.5, "zoom": (1.0, 1.25, 2.0)}, seed=3)
    plain_set, factors = Cityscapes(root, tasks=rules()), set()
    for draw in range(8):
        sample, levels = augmented[draw * 3 + 1], plain_set[1]["inverse_depth"]
        fits = [scale for scale in (1.0, 1.25, 2.0) if np.isin(sample["inverse_depth"], levels * scale).all()]
        assert len(fits) == 1, "a value that is no stored one times the scale"
        factors.add(fits[0])
        assert sample["inverse_depth"].equal(augmented[draw * 3 + 1]["inverse_depth"])
    assert len(factors) > 1


def test_resizing_keeps_the_values(root):
    small = Cityscapes(root, tasks=rules(), size=(4, 8))[2]
    stored = content(2)
    np.testing.assert_array_equal(small["inverse_depth"][0], stored["depth"][1::2, 1::2, 0].astype(np.float32))
    assert tuple(small["image"].shape) == (3, 4, 8) and tuple(small["segmentation"].shape) == (4, 8)


# -- bad input ---------------------------------------------------------------------------------------------------------
def test_missing_root_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(ValueError) as error:
        Cityscapes(tmp_path / "nowhere", "val")
    for piece in (
        "gaw6vh6qusoyms6",
        "vj349qgg57nthi9",
        "128 x 256",
        "256 x 512",
        "2975",
        "500",
        "label_7",
        "label_19",
        "65535",
        f"{tmp_path}/nowhere/val/image/0.npy",
    ):
        assert piece in str(error.value)


def test_labels_of_other_classes_only(root):
    with pytest.raises(ValueError, match=r"19 classes .* label_19 nor label is .*\(depth, image, label_7\); fetch it"):
        Cityscapes(root, tasks=rules(19))


def test_labels_beyond_the_classes_are_named(tmp_path):
    root = write(tmp_path, 19, "label")
    with pytest.raises(ValueError, match=r"label/0\.npy: label values \[7\.0, .* allowed are -1\.\.6, or 255"):
        Cityscapes(root, tasks=rules(7))[0]


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.full(SIZE, 9e3), r"depth/0\.npy: inverse depth up to 9000, expected 0\.\.1; divide raw disparity by 65535"),
        (np.full(SIZE, np.nan), r"depth/0\.npy: holds no finite number.*fetch this file again"),
        (np.ones((1, *SIZE)), r"depth/0\.npy: shape \(1, 8, 16\), expected \(8, 16, 1\); fetch this file again"),
        (np.array(["far"]), r"depth/0\.npy: holds .*expected float or integer numbers; fetch this file again"),
    ],
)
def test_a_bad_depth_file_is_named(root, depth, message):
    np.save(root / "train" / "depth" / "0.npy", depth)
    with pytest.raises(ValueError, match=message):
        Cityscapes(root, tasks=rules())[0]


def test_a_missing_label_file_is_named(root):
    (root / "train" / "label_7" / "1.npy").unlink()
    with pytest.raises(ValueError, match=r"train/label_7/1\.npy: missing"):
        Cityscapes(root, tasks=rules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "Cityscapes has 'train' and 'val'"),
        ({"tasks": {"depth": {}}}, "Cityscapes: unknown target 'depth'. Did you mean 'inverse_depth'"),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        Cityscapes(root, **arguments)
