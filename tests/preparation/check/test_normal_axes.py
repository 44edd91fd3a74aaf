"""The axes of stored normals, judged by the depth."""

from itertools import permutations, product

import numpy as np
import pytest
from builders.nyu_prepared import SIZE, arrays, write_prepared
from builders.nyu_scene import scene

from symerge_dense.datasets.nyuv2.camera import RGB_CAMERA
from symerge_dense.datasets.nyuv2.normals import CANDIDATES, parse_axes, written
from symerge_dense.preparation.check.check import check
from symerge_dense.preparation.check.normal_axes import EXPECTED, diagnose, difference, in_words

CAMERA = RGB_CAMERA.scaled(SIZE[0] / 480, SIZE[1] / 640)
EVERY = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.fixture(scope="module")
def frames():
    return [arrays(number) for number in range(2)]


def store(normals, order, signs):
    """Our normals as a writer of other axes stores them: stored channel c is signs[c] times ours[order[c]]."""
    return normals[..., list(order)] * np.array(signs)


def test_all_48_axes_are_candidates_and_come_from_their_own_name():
    assert len(set(CANDIDATES)) == 48 and EXPECTED in CANDIDATES
    assert all(parse_axes(written(axes)) == axes for axes in CANDIDATES)


@pytest.mark.parametrize(("order", "signs"), EVERY)
def test_whatever_the_axes_they_are_found(frames, order, signs):
    stored = [store(frame["normal"], order, signs) for frame in frames]
    found = diagnose(stored, [frame["depth"][..., 0] for frame in frames], CAMERA)
    assert found.sure and found.error < 1 and found.margin > 8
    np.testing.assert_allclose(found.best.apply(stored[0].astype(np.float32)), frames[0]["normal"], atol=1e-6)
    assert (found.best == EXPECTED) == (difference(found.best) == "")


@pytest.mark.parametrize(
    ("text", "told", "words"),
    [
        ("x,z,y", "", "(x right, z forward, y up)"),
        ("-x,z,y", "channel 0 is flipped", "(x left, z forward, y up)"),
        ("x,-z,y", "channel 1 is flipped", "(x right, z backward, y up)"),
        ("x,z,-y", "channel 2 is flipped", "(x right, z forward, y down)"),
        ("x,y,z", "channels 1 and 2 are swapped", "(x right, y up, z forward)"),
        ("x,-y,z", "OpenCV's axes", "(x right, y down, z forward)"),
        ("y,z,-x", "channels 0 and 2 are swapped, channel 2 is flipped", "(y up, z forward, x left)"),
        ("-x,-z,-y", "channels 0, 1 and 2 are flipped", "(x left, z backward, y down)"),
        ("z,y,x", "all channels are permuted", "(z forward, y up, x right)"),
    ],
)
def test_the_difference_in_words(text, told, words):
    axes = parse_axes(text)
    assert (difference(axes), in_words(axes)) == (told, words)


def test_at_full_size_with_noise_the_error_is_the_noise():
    frame, rng = scene(1), np.random.default_rng(0)
    spread = np.deg2rad(6)
    noisy = frame.normal + (frame.normal.any(-1, keepdims=True) * rng.normal(0, spread, frame.normal.shape))
    found = diagnose([noisy], [frame.depth], RGB_CAMERA)
    assert found.sure and found.best == EXPECTED and 5 < found.error < 9  # the median of a Rayleigh law: 1.18 spreads


def test_depth_may_be_in_any_unit_and_have_holes(frames):
    depth = frames[0]["depth"][..., 0] * 1000
    depth[20:40] = np.nan
    depth[60:70] = 0
    found = diagnose([frames[0]["normal"]], [depth], CAMERA)
    assert found.sure and found.best == EXPECTED


def test_one_wall_alone_is_no_evidence():
    wall = np.zeros((*SIZE, 3))
    wall[..., 1] = -1
    found = diagnose([wall], [np.full(SIZE, 2.0)], CAMERA)
    assert found.pixels > 1000 and not found.sure and found.margin < 1e-3


def test_noise_for_normals_is_no_evidence(frames):
    noise = np.random.default_rng(0).normal(size=(*SIZE, 3))
    found = diagnose([noise / np.linalg.norm(noise, axis=-1, keepdims=True)], [frames[0]["depth"][..., 0]], CAMERA)
    assert not found.sure


def test_nothing_to_compare():
    found = diagnose([np.zeros((*SIZE, 3))], [np.full(SIZE, 2.0)], CAMERA)
    assert found.pixels == 0 and not found.sure and "no pixel has both" in str(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-x,z,y", "channel 0 is flipped"),
        ("x,-z,y", "channel 1 is flipped"),
        ("x,z,-y", "channel 2 is flipped"),
        ("x,-y,z", "OpenCV's axes"),
        ("x,y,z", "channels 1 and 2 are swapped"),
    ],
)
def test_the_check_names_other_axes_and_the_cure(tmp_path, text, told):
    root, axes = write_prepared(tmp_path), parse_axes(text)
    for path in (root / "val" / "normal").glob("*.npy"):
        ours = np.load(path, allow_pickle=False)
        stored = np.zeros_like(ours)
        for channel, (source, sign) in enumerate(zip(axes.channels, axes.signs, strict=True)):
            stored[..., source] = sign * ours[..., channel]
        np.save(path, stored)
    report = check(root, samples=6)
    (fault,) = report.faults
    assert fault.path == root / "val" / "normal" and fault.text.startswith(f"{told}: they hold {in_words(axes)}")
    assert "expected (x right, z forward, y up). Packagings nyud_mt and nyudv2: convert with" in fault.text
    assert f"--normal-axes={text};" in fault.text
    assert report.warnings == []


def test_the_check_only_warns_where_the_scene_is_flat(tmp_path):
    root = write_prepared(tmp_path)
    flat = {"normal": np.broadcast_to([0.0, -1.0, 0.0], (*SIZE, 3)), "depth": np.full((*SIZE, 1), 2.0)}
    for folder, array in flat.items():
        for path in (root / "val" / folder).glob("*.npy"):
            np.save(path, array)
    report = check(root, samples=6)
    assert report.faults == []
    assert [warning.path for warning in report.warnings if "axes of the normals are uncertain" in warning.text] == [
        root / "val" / "normal"
    ]
