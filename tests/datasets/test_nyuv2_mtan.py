"""NYUv2 in its MTAN packaging: any numeric dtype, pairing by number, an error naming the file for every bad input."""

import numpy as np
import pytest
from builders.photos import write_hidden_files

from symerge_dense.datasets.class_names import NYU13, NYU40
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.registry import TASKS

SIZE, COUNT = (12, 16), 11
NAMES = ("segmentation", "edges", "depth", "normals")


@pytest.fixture(scope="module")
def rules():
    return {name: TASKS[name]() for name in NAMES}


def content(index):
    """Image, label, depth, normal of one number, as documented; different for every index."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (*SIZE, 3)) / 255
    label = np.repeat(rng.integers(-1, 13, (SIZE[0] // 4, SIZE[1] // 4)), 4, 0).repeat(4, 1)
    depth = rng.uniform(0.7, 10, (*SIZE, 1))
    depth[0, :3] = 0
    normal = rng.normal(size=(*SIZE, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    normal[2:4, 5:7] = 0
    return {"image": image, "label": label, "depth": depth, "normal": normal}


def write(root, dtypes, count=COUNT, split="train"):
    for index in range(count):
        for part, array in content(index).items():
            folder = root / split / part
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{index}.npy", array.astype(dtypes.get(part, np.float64)))
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "nyuv2", {}, count=3)


@pytest.mark.parametrize(
    "dtypes",
    [
        {"depth": np.float32, "label": np.float32},
        dict.fromkeys(("image", "label", "depth", "normal"), np.float32),
        {"label": np.int64, "depth": np.float16},
        {"label": np.int8, "normal": np.float32},
    ],
    ids=["as published", "float32", "int64 and float16", "int8"],
)
def test_any_numeric_dtype(tmp_path, rules, dtypes):
    dataset = NYUv2(write(tmp_path, dtypes), "train", rules)
    assert len(dataset) == COUNT
    for index in (0, 2, 10):  # 10 sorts before 2 as text
        stored, sample = content(index), dataset[index]
        np.testing.assert_allclose(sample["image"].numpy(), stored["image"].transpose(2, 0, 1) * 255, atol=1e-3)
        np.testing.assert_array_equal(sample["segmentation"], np.where(stored["label"] < 0, 255, stored["label"]))
        np.testing.assert_allclose(sample["depth"].numpy(), stored["depth"].transpose(2, 0, 1), rtol=1e-3)
        np.testing.assert_allclose(sample["normals"].numpy(), stored["normal"].transpose(2, 0, 1), atol=1e-6)
        assert sample["index"] == index


def test_integer_images_are_0_to_255(root):
    for index in range(3):
        np.save(root / "train" / "image" / f"{index}.npy", np.round(content(index)["image"] * 255).astype(np.uint8))
    np.testing.assert_allclose(NYUv2(root).image(1), content(1)["image"] * 255, atol=1e-4)


def test_tensors_have_the_types_of_the_contract(root, rules):
    sample = NYUv2(root, "train", rules)[0]
    layout = {name: (str(value.dtype), tuple(value.shape)) for name, value in sample.items() if name != "index"}
    assert layout == {
        "image": ("torch.float32", (3, *SIZE)),
        "segmentation": ("torch.int64", SIZE),
        "edges": ("torch.float32", (1, *SIZE)),
        "depth": ("torch.float32", (1, *SIZE)),
        "normals": ("torch.float32", (3, *SIZE)),
    }


def test_invalid_pixels_are_those_of_the_files(root, rules):
    label = content(0)["label"]
    label[0, 0] = 255
    depth, normal = content(0)["depth"], content(0)["normal"]
    depth[5, 5], depth[6, 6], depth[7, 7] = np.nan, -1, np.inf
    normal[8, 8], normal[9, 9] = 0.1, np.nan
    for part, array in (("label", label), ("depth", depth), ("normal", normal)):
        np.save(root / "train" / part / "0.npy", array)
    sample = NYUv2(root, "train", rules)[0]
    valid = {name: rule.valid(sample[name][None])[0].numpy() for name, rule in rules.items()}
    np.testing.assert_array_equal(valid["segmentation"], (label >= 0) & (label < 13))
    np.testing.assert_array_equal(valid["edges"], valid["segmentation"])
    np.testing.assert_array_equal(valid["depth"], (np.nan_to_num(depth, posinf=0) > 0)[..., 0])
    np.testing.assert_array_equal(valid["normals"], np.linalg.norm(np.nan_to_num(normal), axis=-1) > 0.5)
    assert all(bool(sample[name].isfinite().all()) for name in NAMES)


def test_edges_are_the_borders_of_the_label_map(root, rules):
    sample = NYUv2(root, "train", rules)[1]
    labels, edges = sample["segmentation"].numpy(), sample["edges"][0].numpy()
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            around = [
                labels[v, u]
                for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                if 0 <= v < SIZE[0] and 0 <= u < SIZE[1]
            ]
            border = any(other not in (labels[y, x], 255) for other in around)
            assert edges[y, x] == (255 if labels[y, x] == 255 else border)


def test_resize_keeps_labels_pure_and_depth_metric(root, rules):
    sample = NYUv2(root, "train", rules, size=(6, 8))[0]
    assert tuple(sample["image"].shape) == (3, 6, 8) and tuple(sample["segmentation"].shape) == (6, 8)
    np.testing.assert_array_equal(
        sample["segmentation"], np.where(content(0)["label"] < 0, 255, content(0)["label"])[1::2, 1::2]
    )
    image = content(0)["image"].reshape(6, 2, 8, 2, 3).mean((1, 3)) * 255
    np.testing.assert_allclose(sample["image"].numpy(), image.transpose(2, 0, 1), atol=1e-2)


def test_class_count_follows_the_task(root):
    for index in range(3):
        label = np.arange(index, index + SIZE[0] * SIZE[1]).reshape(SIZE) % 41 - 1
        np.save(root / "train" / "label" / f"{index}.npy", label.astype(np.float32))
    dataset = NYUv2(root, "train", {"segmentation": TASKS["segmentation"](classes=40), "edges": {}})
    labels = dataset[2]["segmentation"].numpy()
    np.testing.assert_array_equal(labels, np.where(label < 0, 255, label))
    assert set(np.unique(labels)) == {*range(40), 255}
    np.testing.assert_array_equal(dataset[2]["edges"][0] == 255, label < 0)
    assert dataset.classes == NYU40 == dataset.metainfo["classes"] and NYUv2(root).classes == NYU13
    with pytest.raises(ValueError, match=r"label/0\.npy: label values \[13\.0, .*allowed are -1\.\.12"):
        NYUv2(root, "train", {"segmentation": {}})[0]


def test_edges_alone_take_labels_of_either_list(root):
    label = np.full(SIZE, 39)
    label[:, :4] = 12
    np.save(root / "train" / "label" / "0.npy", label)
    edges = NYUv2(root, tasks={"edges": {}})[0]["edges"][0]
    assert edges.sum(0).tolist() == [0, 0, 0, SIZE[0], SIZE[0], *[0] * 11]
    np.save(root / "train" / "label" / "0.npy", label + 1)
    with pytest.raises(ValueError, match=r"label/0\.npy: label values \[40\], allowed are -1\.\.39"):
        NYUv2(root, tasks={"edges": {}})[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_split_is_enough(tmp_path, rules, split):
    root = write(tmp_path, {}, count=2, split=split)
    assert len(NYUv2(root, split, rules)) == 2
    other = {"train": "val", "val": "train"}[split]
    with pytest.raises(ValueError, match=rf"{other} is not there(.|\n)*{other}/image/0\.npy"):
        NYUv2(root, other)


# -- bad input ---------------------------------------------------------------------------------------------------------
def test_missing_root_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(ValueError) as error:
        NYUv2(tmp_path / "nowhere")
    place = f"{tmp_path}/nowhere/train/image/0.npy"
    assert str(error.value).startswith(f"{tmp_path}/nowhere is not there.\n")
    for piece in (
        "dropbox.com",
        "cloud.tsinghua",
        "image (288,384,3)",
        "-1..12",
        "795",
        "654",
        place,
        f"python tools/prepare_data.py nyuv2 --from PACKAGING SOURCE --out {tmp_path}/nowhere\n",
        f"python tools/prepare_data.py check {tmp_path}/nowhere",
        "mat",
        "parquet",
        "nyud_mt",
        "nyudv2",
    ):
        assert piece in str(error.value)


@pytest.mark.parametrize("part", ["image", "label", "depth", "normal"])
def test_missing_file_is_named(root, rules, part):
    (root / "train" / part / "1.npy").rename(root / "train" / part / "7.npy")
    with pytest.raises(ValueError, match=rf"{part}/1\.npy: missing"):
        NYUv2(root, "train", rules)


def test_surplus_target_is_named(root, rules):
    np.save(root / "train" / "depth" / "3.npy", content(3)["depth"])
    with pytest.raises(ValueError, match=r"depth/3\.npy: there is no image of that name"):
        NYUv2(root, "train", rules)


def test_folder_of_a_task_that_is_not_asked_for_may_be_missing(root):
    for path in (root / "train" / "normal").iterdir():
        path.unlink()
    assert len(NYUv2(root)) == 3


def truncated(path):
    path.write_bytes(path.read_bytes()[:-64])


def no_header(path):
    path.write_bytes(path.read_bytes()[:20])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not an array")


def objects(path):
    np.save(path, np.array([print], object), allow_pickle=True)


def strings(path):
    np.save(path, np.array(["a", "b"]))


def archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


@pytest.mark.parametrize("damage", [truncated, no_header, empty, text, objects, strings, archive])
@pytest.mark.parametrize(("part", "name"), [("image", None), ("label", "segmentation"), ("depth", "depth")])
def test_unreadable_file_is_named(root, rules, damage, part, name):
    dataset = NYUv2(root, "train", rules)
    damage(root / "train" / part / "2.npy")
    with pytest.raises(ValueError, match=rf"{part}/2\.npy: .*fetch this file again"):
        dataset.image(2) if name is None else dataset.target(2, name)
    assert dataset.image(0).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("part", "name", "shape"),
    [
        ("image", None, (16, 12, 3)),
        ("label", "segmentation", (12, 15)),
        ("depth", "depth", (1, 12, 16)),
        ("normal", "normals", (3, 12, 16)),
        ("label", "edges", (12, 16, 3)),
    ],
)
def test_wrong_shape_names_file_found_and_expected(root, rules, part, name, shape):
    np.save(root / "train" / part / "1.npy", np.zeros(shape))
    dataset = NYUv2(root, "train", rules)
    with pytest.raises(ValueError) as error:
        dataset.image(1) if name is None else dataset.target(1, name)
    assert f"{part}/1.npy: shape {shape}, expected (12, 16" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_image_that_is_not_finite_is_named(root, value):
    image = content(0)["image"]
    image[3, 4, 1] = value
    np.save(root / "train" / "image" / "0.npy", image)
    with pytest.raises(ValueError, match=r"image/0\.npy: .*NaN or infinite"):
        NYUv2(root)[0]


def test_float_image_beyond_one_is_refused(root):
    np.save(root / "train" / "image" / "0.npy", content(0)["image"] * 255)
    with pytest.raises(ValueError, match=r"image/0\.npy: image values .*255.*expected 0\.\.1"):
        NYUv2(root)[0]


@pytest.mark.parametrize(
    ("value", "dtype"), [(13, np.float64), (-2, np.int64), (2.5, np.float32), (np.nan, np.float64), (254, np.uint8)]
)
def test_label_outside_the_classes_is_named(root, rules, value, dtype):
    label = np.zeros(SIZE, dtype)
    label[2, 3] = value
    np.save(root / "train" / "label" / "1.npy", label)
    dataset = NYUv2(root, "train", rules)
    with pytest.raises(ValueError, match=rf"label/1\.npy: label values \[{value}.*\], allowed are -1\.\.12, or 255"):
        dataset[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "'train' and 'val'"),
        ({"tasks": {"segmentatoin": {}}}, "Did you mean 'segmentation'"),
        ({"tasks": {"albedo": {}}}, "NYUv2: unknown target 'albedo'"),
        ({"size": (3,)}, "size="),
        ({"size": (3.5, 4)}, "size="),
        ({"tasks": {"segmentation": {"classes": 14}}}, "14 classes: NYUv2 has 13 or 40; give the task classes=13"),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        NYUv2(root, **arguments)


def test_empty_image_folder(tmp_path):
    (tmp_path / "val" / "image").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no \.npy file; expected 0\.npy"):
        NYUv2(tmp_path, "val")


def test_hidden_files_do_not_shift_the_numbers(root, rules):
    plain = [NYUv2(root, "train", rules)[index] for index in range(3)]
    for part in ("image", "label", "depth", "normal"):
        write_hidden_files(root / "train" / part, like=".npy")
    dataset = NYUv2(root, "train", rules)
    assert len(dataset) == 3
    for index, before in enumerate(plain):
        assert all(np.array_equal(before[name], dataset[index][name]) for name in ("image", *NAMES))
    dataset.check_images()


def test_image_of_another_shape_is_found_before_work(root):
    np.save(root / "train" / "image" / "1.npy", np.zeros((16, 12, 3)))
    (root / "train" / "image" / "2.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 3 images cannot be read:\n.*1\.npy: shape \(16, 12, 3\)(.|\n)*2\.npy"):
        NYUv2(root, "train").check_images()


def test_frames_are_a_stretch_of_the_split(tmp_path, rules):
    root = write(tmp_path, {})
    whole, part = NYUv2(root, "train", rules), NYUv2(root, "train", rules, frames=[8, 11])
    assert len(whole) == 11 and len(part) == 3
    for index in range(3):
        expected, sample = whole[8 + index], part[index]
        assert sample.pop("index") == index and expected.pop("index") == 8 + index
        assert all(sample[name].equal(expected[name]) for name in expected)
        assert part.image_name(index).endswith(f"{8 + index}.npy")
        assert part.target_name(index, "depth").endswith(f"{8 + index}.npy")
    with pytest.raises(IndexError):
        part.image(3)


@pytest.mark.parametrize("frames", [(0, 12), (4, 4), (-1, 3), (3,), (0, 2.0), (True, 3), 5])
def test_frames_outside_the_split_say_what_it_has(tmp_path, frames):
    root = write(tmp_path, {})
    with pytest.raises(ValueError, match=r"has 11 images, 0 to 10; give \(first, stop\) with 0 <= first < stop <= 11"):
        NYUv2(root, frames=frames)
