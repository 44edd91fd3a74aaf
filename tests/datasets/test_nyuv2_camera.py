"""The camera of NYUv2, and normals from depth: exact on planes, sharp at creases and jumps, silent on the unknown."""

import cv2
import numpy as np
import pytest
from builders.nyu_scene import CX, CY, FX, FY, scene

from symerge_dense.datasets.nyuv2.camera import RADIUS, RGB_CAMERA, Intrinsics, normals_from_depth
from symerge_dense.datasets.targets import EIGEN_CROP

SMALL = Intrinsics(100.0, 105.0, 50.3, 38.7)
SHAPE = (80, 100)


def plane(normal, distance, camera=SMALL, shape=SHAPE):
    """Depth (H,W) of the plane n . p = -distance, n towards the camera in (x right, y down, z forward); and n, ours."""
    rows, columns = np.indices(shape)
    rays = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(shape)], -1)
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = -distance / (rays @ normal)
    assert (depth > 0).all()
    return depth, np.array([normal[0], normal[2], -normal[1]])


def degrees(found, truth):
    """Angle per pixel, for unit vectors; well-conditioned at 0."""
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(found.astype(np.float64) - truth, axis=-1) / 2, 0, 1)))


def known(normals):
    return normals.any(-1)


# -- the camera -------------------------------------------------------------------------------------------------------
def test_pixels_count_from_0():
    assert RGB_CAMERA == (FX, FY, CX, CY) and RGB_CAMERA.cx == pytest.approx(324.582449)


def test_the_eigen_crop_is_426_by_560():
    top, bottom, left, right = EIGEN_CROP
    assert np.zeros((480, 640))[top:bottom, left:right].shape == (426, 560)
    assert (top, left) == (45, 41)


def test_a_cropped_and_resized_camera_sees_the_same_rays():
    columns = np.tile((np.arange(640) - RGB_CAMERA.cx) / RGB_CAMERA.fx, (480, 1))
    rows = np.tile((np.arange(480) - RGB_CAMERA.cy)[:, None] / RGB_CAMERA.fy, (1, 640))
    camera = RGB_CAMERA.cropped(60, 80).scaled(1 / 3, 1 / 4)
    for rays, centre, focus, axis in ((columns, camera.cx, camera.fx, 1), (rows, camera.cy, camera.fy, 0)):
        resized = cv2.resize(rays[60:480, 80:640], (140, 140), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(resized.mean(1 - axis), (np.arange(140) - centre) / focus, atol=1e-9)


# -- planes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("normal", [(0, 0, -1), (0.5, -0.4, -1), (-0.7, 0.1, -0.6), (0.02, -0.6, -0.7)])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_plane_is_exact_to_the_border(normal, kind):
    depth, truth = plane(normal, 1.3)
    found = normals_from_depth(depth.astype(kind), SMALL)
    assert found.dtype == np.float32 and found.shape == (*SHAPE, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    assert degrees(found, truth).max() < 0.02


def test_axes_are_right_forward_up_and_normals_face_the_camera():
    facing = normals_from_depth(np.full(SHAPE, 2.0), SMALL)
    np.testing.assert_allclose(facing.mean((0, 1)), [0, -1, 0], atol=1e-6)
    floor = normals_from_depth(plane((0, -1, -0.01), 3.0, SMALL._replace(cy=-20))[0], SMALL._replace(cy=-20))
    assert floor[..., 2].min() > 0.9  # up
    wall_at_the_left = normals_from_depth(plane((1, 0, 0), 2.0, SMALL._replace(cx=200))[0], SMALL._replace(cx=200))
    assert wall_at_the_left[..., 0].min() > 0.99  # its normal points right


def test_the_scene_of_five_planes():
    frame = scene(0)
    found = normals_from_depth(frame.depth, RGB_CAMERA)
    both = known(found) & known(frame.normal)
    off = degrees(found, frame.normal)[both]
    assert both.sum() == known(frame.normal).sum()
    assert np.median(off) < 0.01 and off.mean() < 1 and (off < 5).mean() > 0.95


def test_a_crop_with_its_own_camera_sees_the_same_normals():
    frame = scene(1)
    top, bottom, left, right = EIGEN_CROP
    whole = normals_from_depth(frame.depth, RGB_CAMERA)[top:bottom, left:right]
    cropped = normals_from_depth(frame.depth[top:bottom, left:right], RGB_CAMERA.cropped(top, left))
    inside = (slice(3 * RADIUS, -3 * RADIUS),) * 2
    assert degrees(cropped, whole)[inside].max() < 1e-2
    wrong = normals_from_depth(frame.depth[top:bottom, left:right], RGB_CAMERA)
    assert degrees(wrong, whole)[inside].mean() > 0.3  # what the camera is worth


# -- what is no plane --------------------------------------------------------------------------------------------------
def test_a_jump_bends_nothing():
    near, left = plane((0.4, 0, -1), 1.0)
    far, right = plane((-0.3, 0.2, -1), 3.0)
    behind = np.indices(SHAPE)[1] >= 43
    found = normals_from_depth(np.where(behind, far, near), SMALL)
    assert known(found).all()
    assert degrees(found, np.where(behind[..., None], right, left)).max() < 0.02


def test_a_crease_is_sharper_than_a_window():
    """Where wall and floor meet; a pixel's own window, 10 rows to each side, would bend 20 rows."""
    camera, rows = SMALL._replace(cy=-20), np.indices(SHAPE)[0]
    floor, up = plane((0, -1, 0), 0.5, camera)
    found = normals_from_depth(np.where(rows < 40, floor[40, 0], floor), camera)
    off = degrees(found, np.where((rows < 40)[..., None], [0, -1, 0], up))
    assert off[np.abs(rows - 39.5) > 6].max() < 2 and (off > 5).mean() < 12 / 80


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf])
def test_a_hole_is_unknown_and_touches_nothing_else(hole):
    depth, truth = plane((0.5, -0.4, -1), 1.3)
    gap = np.zeros(SHAPE, bool)
    gap[30:50, 20:70] = gap[:5] = gap[60, 33] = True
    found = normals_from_depth(np.where(gap, hole, depth), SMALL)
    np.testing.assert_array_equal(known(found), ~gap)
    assert degrees(found, truth)[~gap].max() < 0.02


def test_a_speck_before_a_plane_is_unknown_and_bends_little():
    depth, truth = plane((0.5, -0.4, -1), 1.3)
    depth[30, 40] *= 0.9
    found = normals_from_depth(depth, SMALL)
    assert np.argwhere(~known(found)).tolist() == [[30, 40]]
    assert degrees(found, truth)[known(found)].max() < 3


def test_clutter_is_unknown():
    depth = np.random.default_rng(0).uniform(1, 4, SHAPE)
    assert known(normals_from_depth(depth, SMALL)).mean() < 0.01


@pytest.mark.parametrize("depth", [np.zeros(SHAPE), np.full(SHAPE, np.nan), np.full((1, 9), 2.0), np.eye(80, 100)])
def test_nothing_to_see(depth):
    assert not normals_from_depth(depth, SMALL).any()


def test_a_channel_axis_is_refused():
    with pytest.raises(ValueError, match=r"\(80, 100, 1\).*\(H, W\)"):
        normals_from_depth(np.ones((*SHAPE, 1)), SMALL)


# -- noise ------------------------------------------------------------------------------------------------------------
def test_against_least_squares_written_out():
    """Where the noise is too small for a window at the side to win, the answer is the fit in the pixel's own window."""
    depth, _ = plane((0.5, -0.4, -1), 1.3)
    depth = depth * (1 + np.random.default_rng(0).normal(0, 5e-4, SHAPE))
    depth[33:36, 51:60] = 0
    found = normals_from_depth(depth, SMALL)
    for row, column in ((30, 40), (39, 55), (12, 80), (60, 20)):
        rows, columns = np.mgrid[row - RADIUS : row + RADIUS + 1, column - RADIUS : column + RADIUS + 1]
        seen = depth[rows, columns] > 0
        rays = np.stack(
            [(columns[seen] - SMALL.cx) / SMALL.fx, (rows[seen] - SMALL.cy) / SMALL.fy, np.ones(seen.sum())], -1
        )
        away = np.linalg.lstsq(rays, 1 / depth[rows, columns][seen], rcond=None)[0]
        right, down, forward = -away / np.linalg.norm(away)
        np.testing.assert_allclose(found[row, column], [right, forward, -down], atol=1e-5)


def test_the_steps_of_a_sensor_average_out():
    """A structured-light sensor measures 1/depth in steps of about 0.003 per metre."""
    camera = RGB_CAMERA.cropped(150, 200)
    depth, truth = plane((0.5, -0.4, -1), 1.6, camera, (160, 200))
    found = normals_from_depth(1 / (np.round(1 / depth / 0.003) * 0.003), camera)
    assert known(found).all() and np.median(degrees(found, truth)) < 3
