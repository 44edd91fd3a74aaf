"""NYUDv2 of ATRC and InvPT: PNG images, labels and normals bit by bit, the crop it was made with, and bad files."""

import shutil

import numpy as np
import pytest
from builders.nyu_other_files import frame, normal_picture, write_astmt, write_nyud_mt, write_nyudv2, write_picture
from PIL import Image
from torch.utils.data import DataLoader

from symerge_dense.datasets.class_names import NYU40, NYU40_TO_13
from symerge_dense.datasets.nyuv2.frames import NYUFrames
from symerge_dense.datasets.nyuv2.listed import NYUDv2

TASKS = {"segmentation": {"classes": 40}, "edges": {}, "depth": {}, "normals": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nyudv2(tmp_path_factory.mktemp("nyudv2"), train=(1, 0), val=(2,))


@pytest.fixture
def own(root, tmp_path):
    """A root that the test may damage."""
    return shutil.copytree(root, tmp_path / "own")


def angles(found, truth):
    """Degrees between unit vectors where both are valid."""
    both = found.any(-1) & truth.any(-1)
    return np.degrees(np.arccos(np.clip((found * truth).sum(-1, dtype=np.float64)[both], -1, 1)))


def test_png_values_are_bit_identical_in_the_order_of_the_list(root):
    dataset = NYUDv2(root, "train", TASKS)
    assert isinstance(dataset, NYUFrames) and dataset.packaging == "nyudv2"
    assert len(dataset) == 2 and dataset.classes == NYU40 and dataset.DEFAULT_SIZE == (425, 560)
    for index, number in enumerate((1, 0)):
        image, label, depth, _ = frame(number, cropped=True)
        assert np.array_equal(dataset.image(index), image)
        assert np.array_equal(dataset.target(index, "segmentation"), np.where(label == 0, 255, label.astype(int) - 1))
        assert np.array_equal(dataset.target(index, "depth"), depth)


def test_normals_are_what_8_bits_can_hold(root):
    found, (*_, truth) = NYUDv2(root, "val", TASKS).target(0, "normals"), frame(2, cropped=True)
    decoded = 2 * normal_picture(truth).astype(np.float64) / 255 - 1
    decoded /= np.linalg.norm(decoded, axis=-1, keepdims=True)
    valid = truth.any(-1)
    np.testing.assert_allclose(found[valid], decoded[valid], atol=1e-6)
    assert angles(found, truth).max() < 0.5
    assert not found[~valid].any(), "mid-grey is no direction"


def test_thirteen_classes(root):
    label = frame(2, cropped=True)[1]
    expected = np.where(label == 0, 255, np.array(NYU40_TO_13)[label.astype(int) - 1])
    dataset = NYUDv2(root, "val", {"segmentation": {"classes": 13}})
    assert len(dataset.classes) == 13 and np.array_equal(dataset.target(0, "segmentation"), expected)


def test_batches_from_workers(root):
    dataset = NYUDv2(root, "train", TASKS, size=(48, 64), augment={"flip": 0.5, "zoom": (1.0, 1.5)}, seed=3)
    loaded = next(iter(DataLoader(dataset, batch_size=2, num_workers=1, sampler=range(2, 4))))
    for slot, key in enumerate((2, 3)):
        assert all(np.array_equal(loaded[name][slot], value) for name, value in dataset[key].items())


def test_another_crop_is_refused(root):
    with pytest.raises(ValueError, match=r"crop='eigen' .* already cropped to 425 x 560; use crop='none'"):
        NYUDv2(root, "val", TASKS, crop="eigen")


def test_normals_from_depth_see_through_the_camera_of_the_crop(root, monkeypatch):
    truth = frame(2, cropped=True)[3]
    dataset = NYUDv2(root, "val", TASKS, normals="depth")
    right = angles(dataset.target(0, "normals"), truth)
    assert right.size > 0.8 * truth.any(-1).sum() and np.quantile(right, 0.9) < 0.05
    monkeypatch.setattr(NYUDv2, "frame_of_crop", NYUFrames.frame_of_crop)
    wrong = angles(dataset.target(0, "normals"), truth)
    assert np.quantile(wrong, 0.9) > 2, "the camera of whole frames is another one"


def test_normals_from_depth_need_no_stored_ones(own):
    shutil.rmtree(own / "normals")
    dataset = NYUDv2(own, "train", {"normals": {}}, normals="depth")
    assert dataset[0]["normals"].shape == (3, 425, 560)
    assert [path.parent.name for path in dataset.source_files] == ["gt_sets", *["images"] * 2, *["depth"] * 2]


def test_stored_axes_may_be_others(own):
    normal = frame(2, cropped=True)[3]
    stored = np.stack([normal[..., 0], -normal[..., 2], normal[..., 1]], -1)  # right, down, forward
    write_picture(own / "normals" / "img_5003.png", normal_picture(stored))
    assert angles(NYUDv2(own, "val", TASKS, normal_axes="x,-y,z").target(0, "normals"), normal).max() < 0.5
    assert np.median(angles(NYUDv2(own, "val", TASKS).target(0, "normals"), normal)) > 45


def test_the_numbers_behind_a_palette_are_the_labels(own):
    label = frame(2, cropped=True)[1]
    picture = Image.fromarray(label, "L").convert("P")
    picture.putdata(label.reshape(-1).tolist())
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(own / "segmentation" / "img_5003.png")
    found = NYUDv2(own, "val", TASKS).target(0, "segmentation")
    assert np.array_equal(found, np.where(label == 0, 255, label.astype(int) - 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda label: Image.fromarray(np.repeat(label[..., None], 3, -1)),
            r"shape \(425, 560, 3\), expected one class",
        ),
        (lambda label: Image.fromarray(label > 0), "bool of shape"),
        (lambda label: Image.fromarray(np.where(label == 0, 255, label)), r"label values \[255\], allowed are 1\.\.40"),
    ],
    ids=["colours", "one bit", "another void"],
)
def test_labels_of_another_kind_are_named(own, make, message):
    make(frame(2, cropped=True)[1]).save(own / "segmentation" / "img_5003.png")
    with pytest.raises(ValueError, match=rf"segmentation/img_5003\.png: .*{message}"):
        NYUDv2(own, "val", TASKS).target(0, "segmentation")


@pytest.mark.parametrize("folder", ["images", "segmentation", "normals", "depth"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: -len(data) // 3],
        lambda data: data[:9],
        lambda data: b"",
        lambda data: data[:60] + bytes(len(data) - 60),
    ],
    ids=["cut", "9", "empty", "zeros"],
)
def test_damaged_files_are_named(own, folder, damage):
    path = next((own / folder).glob("img_5001.*"))
    content = damage(path.read_bytes())
    path.write_bytes(content)
    dataset = NYUDv2(own, "train", TASKS)
    with pytest.raises(ValueError, match=rf"{folder}/{path.name}: not a readable .*fetch this file again"):
        dataset.image(1) if folder == "images" else dataset.target(1, folder)


@pytest.mark.parametrize("folder", ["images", "segmentation", "normals", "depth"])
def test_missing_files_are_named(own, folder):
    path = next((own / folder).glob("img_5001.*"))
    path.unlink()
    with pytest.raises(ValueError, match=rf"{folder}/{path.name}: missing, one of 1"):
        NYUDv2(own, "train", TASKS)


@pytest.mark.parametrize("write", [write_nyud_mt, write_astmt])
def test_the_packaging_of_the_same_folders_is_told_apart(tmp_path, write):
    write(tmp_path, train=(0,), val=(), cropped=True)
    with pytest.raises(
        ValueError,
        match=r"no known packaging: found images/img_5001\.jpg(.|\n)*NYUDv2 expects one of"
        r"(.|\n)*images/\*\.png(.|\n)*take the packaging whose files these are",
    ):
        NYUDv2(tmp_path, "train", TASKS)
