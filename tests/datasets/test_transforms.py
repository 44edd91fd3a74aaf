"""Augment: one view for all arrays, colours for the image only, and MTAN's protocol against a written-out reference."""

import numpy as np
import pytest
import torch

from symerge_dense.datasets.transforms import MTAN_SCALES, Augment, View, jitter, mtan_crop
from symerge_dense.registry import TASKS

SIZE = (24, 36)
NAMES = ("segmentation", "depth", "normals")


@pytest.fixture(scope="module")
def rules():
    return {name: TASKS[name]() for name in NAMES}


def arrays(size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(*size, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[:3, :4] = 0
    return {
        "image": rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        "segmentation": rng.integers(0, 13, size),
        "depth": rng.uniform(0.5, 9, size).astype(np.float32),
        "normals": normals,
    }


def equal(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


# -- MTAN --------------------------------------------------------------------------------------------------------------
def reference_bilinear(image, height, width):
    """align_corners=True: corners map to corners; (H,W,C) float64."""
    rows, columns = image.shape[0], image.shape[1]
    result = np.zeros((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            sy, sx = y * (rows - 1) / (height - 1), x * (columns - 1) / (width - 1)
            y0, x0 = min(int(sy), rows - 2), min(int(sx), columns - 2)
            a, b = sy - y0, sx - x0
            result[y, x] = (
                (1 - a) * (1 - b) * image[y0, x0]
                + (1 - a) * b * image[y0, x0 + 1]
                + a * (1 - b) * image[y0 + 1, x0]
                + a * b * image[y0 + 1, x0 + 1]
            )
    return result


def reference_nearest(image, height, width):
    """Rounding down, as torch's 'nearest' always did."""
    rows = torch.arange(height).float() * (image.shape[0] / height)
    columns = torch.arange(width).float() * (image.shape[1] / width)
    return image[rows.floor().long().numpy()[:, None], columns.floor().long().numpy()]


def reference(sample, view):
    """Scale, crop, resize, flip, as MTAN describes them, on float images; depth / s, normal x negated by a flip."""
    height, width = SIZE
    h, w = int(height / view.scale), int(width / view.scale)
    i, j = int(view.down * (height - h + 1)), int(view.across * (width - w + 1))
    crop = {name: array[i : i + h, j : j + w] for name, array in sample.items()}
    result = {
        "image": reference_bilinear(crop["image"].astype(float), *SIZE),
        "segmentation": reference_nearest(crop["segmentation"], *SIZE),
        "depth": reference_nearest(crop["depth"], *SIZE) / np.float32(view.scale),
        "normals": reference_bilinear(crop["normals"].astype(float), *SIZE),
    }
    if view.mirrored:
        result = {name: array[:, ::-1].copy() for name, array in result.items()}
        result["normals"][..., 0] *= -1
    return result


@pytest.mark.parametrize("seed", range(6))
def test_mtan_protocol_is_the_published_one(rules, seed):
    augment, sample = Augment(protocol="mtan"), arrays()
    sample["image"] = sample["image"].astype(np.float32)
    view = augment.draw(np.random.default_rng(seed))
    result, expected = augment(sample, rules, np.random.default_rng(seed)), reference(sample, view)
    np.testing.assert_array_equal(result["segmentation"], expected["segmentation"])
    np.testing.assert_allclose(result["depth"], expected["depth"], rtol=1e-6)
    np.testing.assert_allclose(result["image"], expected["image"], atol=2e-3)
    np.testing.assert_allclose(result["normals"], expected["normals"], atol=2e-5)
    assert all(result[name].dtype == sample[name].dtype for name in sample)


def test_mtan_draws_every_scale_every_offset_and_half_the_mirrors():
    augment, rng = Augment(protocol="mtan"), np.random.default_rng(0)
    views = [augment.draw(rng) for _ in range(900)]
    scales = [view.scale for view in views]
    assert {scale: abs(scales.count(scale) - 300) < 60 for scale in MTAN_SCALES} == dict.fromkeys(MTAN_SCALES, True)
    assert abs(sum(view.mirrored for view in views) - 450) < 60
    rows = np.arange(SIZE[0])[:, None] * np.ones(SIZE[1])
    firsts = {int(mtan_crop(SIZE, 1.5, view.down, view.across)(rows, None)[0, 0]) for view in views}
    assert firsts == set(range(SIZE[0] - int(SIZE[0] / 1.5) + 1)), "all offsets, both ends included"


def test_mtan_normals_are_neither_masked_nor_renormalised(rules):
    view = View(False, 1.5, 0.0, 0.0, 1, 1, 1)
    lengths = np.linalg.norm(Augment(protocol="mtan").apply(arrays(), rules, view)["normals"], axis=-1)
    assert ((lengths > 0.05) & (lengths < 0.9)).any()


@pytest.mark.parametrize("size", [(288, 384), (30, 47)])
@pytest.mark.parametrize("scale", MTAN_SCALES)
def test_mtan_crop_against_torch_at_its_own_resolution_and_an_odd_one(rules, size, scale):
    """One after the other: crop, interpolate, divide, mirror."""
    sample = {**arrays(size), "image": arrays(size)["image"].astype(np.float64) / 255}
    sample["segmentation"] = sample["segmentation"].astype(np.float64) - 1  # floats from -1, as MTAN stores them
    view = View(True, scale, 0.37, 0.81, 1, 1, 1)
    result = Augment(protocol="mtan").apply(sample, rules, view)
    height, width = int(size[0] / scale), int(size[1] / scale)
    top, left = int(0.37 * (size[0] - height + 1)), int(0.81 * (size[1] - width + 1))
    for name, array in sample.items():
        layers = torch.tensor(np.atleast_3d(array)).permute(2, 0, 1)[None, :, top : top + height, left : left + width]
        smooth = {"mode": "bilinear", "align_corners": True} if name in ("image", "normals") else {"mode": "nearest"}
        expected = torch.nn.functional.interpolate(layers.float(), size, **smooth)[0].flip(-1)
        if name == "depth":
            expected = expected / scale
        if name == "normals":
            expected[0] *= -1
        np.testing.assert_allclose(np.atleast_3d(result[name]), expected.permute(1, 2, 0).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("arguments", [{"flip": 0.0}, {"color": 0.1}, {"zoom": (1.0, 2.0)}])
def test_mtan_refuses_settings_of_its_own(arguments):
    with pytest.raises(ValueError, match="Leave them out or use protocol='default'"):
        Augment(protocol="mtan", **arguments)
    assert Augment(protocol="mtan", zoom=MTAN_SCALES).scales == MTAN_SCALES


# -- default protocol --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [{}, {"zoom": (1.0, 1.2, 1.5), "color": 0.4}, {"protocol": "mtan"}])
def test_same_generator_same_result_and_input_untouched(rules, arguments):
    augment, sample, before = Augment(**arguments), arrays(), arrays()
    first = augment(sample, rules, np.random.default_rng((1, 2, 3)))
    assert equal(first, augment(sample, rules, np.random.default_rng((1, 2, 3))))
    assert equal(sample, before)
    others = [augment(sample, rules, np.random.default_rng((1, 2, k))) for k in range(4, 12)]
    assert not all(equal(first, other) for other in others)


@pytest.mark.parametrize("arguments", [{}, {"zoom": (1.2, 1.5), "color": 0.4}, {"protocol": "mtan"}])
def test_sizes_and_dtypes_stay(rules, arguments):
    sample = arrays()
    sample["depth"] = sample["depth"][::4, ::4].copy()
    for seed in range(5):
        result = Augment(**arguments)(sample, rules, np.random.default_rng(seed))
        assert {k: (v.shape, v.dtype) for k, v in result.items()} == {k: (v.shape, v.dtype) for k, v in sample.items()}


def test_draws_do_not_depend_on_what_is_augmented(rules):
    """The image alone and the image with its targets are seen alike: expert labels stay on their image."""
    augment, sample = Augment(zoom=(1.0, 1.2, 1.5), color=0.3), arrays()
    alone = augment({"image": sample["image"]}, rules, np.random.default_rng(5))
    np.testing.assert_array_equal(alone["image"], augment(sample, rules, np.random.default_rng(5))["image"])


def test_zoomed_normals_are_unit_vectors_or_none(rules):
    result = Augment(flip=0.5, zoom=(1.2, 1.5))(arrays(), rules, np.random.default_rng(0))["normals"]
    lengths = np.linalg.norm(result, axis=-1)
    known = lengths > 0
    np.testing.assert_allclose(lengths[known], 1, atol=1e-6)
    assert known.sum() > 100 and np.array_equal(known, lengths >= 0.5)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flip_probability(rules, probability):
    sample = arrays()
    result = Augment(flip=probability)(sample, rules, np.random.default_rng(0))
    step = -1 if probability else 1
    for name in ("image", "segmentation", "depth"):
        np.testing.assert_array_equal(result[name], sample[name][:, ::step])
    np.testing.assert_array_equal(result["normals"], sample["normals"][:, ::step] * np.float32([step, 1, 1]))


def test_two_flips_are_none(rules):
    augment, sample = Augment(flip=1.0), arrays()
    twice = augment(augment(sample, rules, np.random.default_rng(0)), rules, np.random.default_rng(0))
    assert equal(twice, sample)


def test_one_scale_is_always_used_and_labels_are_never_mixed(rules):
    augment, sample = Augment(flip=0, zoom=(1.5,)), arrays()
    sample["segmentation"] = np.where(np.arange(SIZE[1]) < 18, 3, 11) * np.ones((SIZE[0], 1), np.int64)
    for seed in range(5):
        assert augment.draw(np.random.default_rng(seed)).scale == 1.5
        result = augment(sample, rules, np.random.default_rng(seed))
        assert set(np.unique(result["segmentation"])) <= {3, 11}
        assert not np.array_equal(result["image"], sample["image"])


def test_wide_labels_pass_through(rules):
    """An expert's 13 logits per pixel, more channels than an image library takes."""
    sample = {**arrays(), "segmentation": np.random.default_rng(0).random((6, 9, 13)).astype(np.float32)}
    result = Augment(zoom=(1.2,))(sample, rules, np.random.default_rng(0))
    assert result["segmentation"].shape == (6, 9, 13)
    assert np.isin(result["segmentation"].sum(-1).round(4), sample["segmentation"].sum(-1).round(4)).all()


# -- colour ------------------------------------------------------------------------------------------------------------
def test_color_touches_the_image_only(rules):
    sample = arrays()
    result = Augment(flip=0, color=0.5)(sample, rules, np.random.default_rng(0))
    assert not np.array_equal(result["image"], sample["image"])
    assert all(np.array_equal(result[name], sample[name]) for name in NAMES)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_color_factors_do_what_they_say(dtype):
    image = np.random.default_rng(0).integers(60, 120, (8, 8, 3)).astype(dtype)
    value = image.astype(float)
    grey = value @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(jitter(image, 1.5, 1, 1), value * 1.5, atol=0.51)
    np.testing.assert_allclose(jitter(image, 1, 0.5, 1), grey.mean() + 0.5 * (value - grey.mean()), atol=0.6)
    np.testing.assert_allclose(jitter(image, 1, 1, 0.5), grey[..., None] + 0.5 * (value - grey[..., None]), atol=0.6)
    assert jitter(image, 1, 1, 1).dtype == dtype
    np.testing.assert_allclose(jitter(image, 1, 1, 1), image, atol=1e-3)
    assert jitter(image, 9, 1, 1).max() <= 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, "flip=1.5"),
        ({"color": -0.1}, "color=-0.1"),
        ({"zoom": (0.9, 1.2)}, "scales >= 1"),
        ({"zoom": ()}, "scales >= 1"),
        ({"zoom": (float("nan"),)}, "scales >= 1"),
        ({"protocol": "mtl"}, "'default' or 'mtan'"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)
