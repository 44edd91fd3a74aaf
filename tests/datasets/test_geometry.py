"""Labels stay true under geometry: normals recomputed from depth and camera agree before and after every transform."""

import numpy as np
import pytest

from symerge_dense.datasets.resize import FRAME, Window, magnify, masked, resample_nearest, resize
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.targets import boundary
from symerge_dense.datasets.transforms import Augment, View
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.normals import Normals

SIZE = (60, 80)
PLAIN = View(False, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0)


class SmoothDepth(Depth):
    """Interpolated, so that a magnified plane has no steps from which normals could not be taken."""

    interpolation = "masked"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    rules = {"depth": SmoothDepth(), "normals": Normals()}
    return Rooms("val", tmp_path_factory.mktemp("rooms"), count=3, size=SIZE, tasks=rules)


def normals_from_depth(depth, focal, center):
    """Unit normals (H,W,3) right, forward, up, towards the camera, by the cross product of central differences."""
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]] + 0.5
    points = np.stack([(columns - center[1]) / focal * depth, depth, (center[0] - rows) / focal * depth], -1)
    across, down = np.zeros_like(points), np.zeros_like(points)
    across[:, 1:-1], down[1:-1] = points[:, 2:] - points[:, :-2], points[2:] - points[:-2]
    normal = np.cross(across, down)
    normal *= -np.sign((normal * points).sum(-1, keepdims=True))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def flat(normals):
    """Pixels (H,W) whose 5x5 neighbourhood lies on one plane as far as the given normals tell."""
    same = np.zeros(normals.shape[:2], bool)
    same[2:-2, 2:-2] = True
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            same &= (normals * np.roll(normals, (dy, dx), (0, 1))).sum(-1) > 0.999
    return same


def median_angle(depth, normals, focal, center):
    """Median angle in degrees between given normals and those of the depth map, on planes without a step in depth."""
    cosine = (normals_from_depth(depth, focal, center) * normals).sum(-1)
    chosen = flat(normals)
    assert chosen.mean() > 0.2
    return float(np.degrees(np.median(np.arccos(np.clip(cosine[chosen], -1, 1)))))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_rendered_normals_are_those_of_the_rendered_depth(rooms, index):
    matrix = rooms.intrinsics
    angle = median_angle(
        rooms.target(index, "depth"), rooms.target(index, "normals"), matrix[0, 0], (matrix[1, 2], matrix[0, 2])
    )
    assert angle < 0.1


def transformed(rooms, view):
    arrays = {"image": rooms.image(0), "depth": rooms.target(0, "depth"), "normals": rooms.target(0, "normals")}
    return Augment(zoom=(1.5,)).apply(arrays, rooms.tasks, view)


def test_after_a_flip(rooms):
    result, matrix = transformed(rooms, PLAIN._replace(mirrored=True)), rooms.intrinsics
    np.testing.assert_array_equal(result["image"], rooms.image(0)[:, ::-1])
    center = (matrix[1, 2], matrix[0, 2])
    assert median_angle(result["depth"], result["normals"], matrix[0, 0], center) < 0.1
    unchanged = result["normals"] * [-1, 1, 1]
    assert median_angle(result["depth"], unchanged, matrix[0, 0], center) > 5, "the test would notice a missing sign"


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [1.2, 1.5])
def test_after_a_zoom(rooms, scale, mirrored):
    """The window of a camera is a camera of ``scale`` times the focal length with a shifted principal point."""
    view, matrix = PLAIN._replace(scale=scale, down=0.7, across=0.2, mirrored=mirrored), rooms.intrinsics
    result = transformed(rooms, view)
    spare = 1 - 1 / scale
    center = [(matrix[1, 2] - 0.7 * spare * SIZE[0]) * scale, (matrix[0, 2] - 0.2 * spare * SIZE[1]) * scale]
    if mirrored:
        center[1] = SIZE[1] - center[1]
    metres = result["depth"] * scale  # the rule made everything nearer; the rays know the true distance
    assert median_angle(metres, result["normals"], matrix[0, 0] * scale, center) < 0.5


def test_zoom_divides_depth(rooms):
    view = PLAIN._replace(scale=1.5, down=0.5, across=0.5)
    result = transformed(rooms, view)["depth"]
    row, column = SIZE[0] // 2, SIZE[1] // 2
    around = rooms.target(0, "depth")[row - 1 : row + 1, column - 1 : column + 1]
    center = result[row - 1 : row + 1, column - 1 : column + 1].mean()
    assert around.min() / 1.5 - 1e-4 <= center <= around.max() / 1.5 + 1e-4


# -- resampling against references written out -------------------------------------------------------------------------
def bilinear(array, rows, columns):
    """Value at fractional pixel positions (centres at +0.5), borders repeated; float64."""
    result = np.zeros((len(rows), len(columns), *array.shape[2:]))
    for i, y in enumerate(np.asarray(rows) - 0.5):
        for j, x in enumerate(np.asarray(columns) - 0.5):
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            for dy, wy in ((0, 1 - (y - y0)), (1, y - y0)):
                for dx, wx in ((0, 1 - (x - x0)), (1, x - x0)):
                    yy, xx = np.clip(y0 + dy, 0, array.shape[0] - 1), np.clip(x0 + dx, 0, array.shape[1] - 1)
                    result[i, j] += wy * wx * array[yy, xx]
    return result


@pytest.mark.parametrize("channels", [(), (1,), (3,), (6,)])
def test_magnify_is_bilinear_interpolation_of_the_window(channels):
    array = np.random.default_rng(0).random((9, 12, *channels)).astype(np.float32)
    window = Window(0.1, 0.25, 1 / 1.5)
    rows, columns = (0.1 + (np.arange(9) + 0.5) / 9 / 1.5) * 9, (0.25 + (np.arange(12) + 0.5) / 12 / 1.5) * 12
    result = magnify(array, window)
    assert result.shape == array.shape
    np.testing.assert_allclose(result, bilinear(array, rows, columns), atol=0.02)  # OpenCV counts in 1/32 pixels


@pytest.mark.parametrize("size", [(3, 4), (9, 12), (18, 24), (7, 5)])
def test_nearest_takes_the_pixel_under_the_centre(size):
    labels = np.arange(9 * 12).reshape(9, 12)
    expected = [
        [labels[int((y + 0.5) * 9 / size[0]), int((x + 0.5) * 12 / size[1])] for x in range(size[1])]
        for y in range(size[0])
    ]
    np.testing.assert_array_equal(resample_nearest(labels, size, FRAME), expected)
    assert resample_nearest(labels, size).dtype == labels.dtype


def test_masked_average_ignores_invalid_pixels():
    depth = np.array([[2, 2, 0, 4], [2, 2, 0, 0], [0, 0, 8, 6], [0, np.nan, 8, 6]], np.float32)
    result = masked(depth, 0.0, lambda values: resize(values, (2, 2)))
    np.testing.assert_allclose(result, [[2, 0], [0, 7]])  # one of four valid is not enough; NaN is as good as invalid


def test_masked_average_of_half_valid_pixels_is_that_of_the_valid_half():
    depth = np.array([[3, 0], [5, 0]], np.float32)
    np.testing.assert_allclose(masked(depth, 0.0, lambda values: resize(values, (1, 1))), [[4]])


def test_masked_keeps_channels_together():
    """A component may equal the invalid value: the pixel is invalid only if all of them do."""
    normals = np.array([[[0, -1, 0], [0, 0, 0]]], np.float32)
    np.testing.assert_allclose(masked(normals, 0.0, lambda values: resize(values, (1, 1))), [[[0, -1, 0]]])


def test_magnified_invalid_region_never_blends_into_its_surroundings():
    depth = np.full((20, 20), 5, np.float32)
    depth[5:12, 6:13] = 0
    arrays, view = {"image": np.zeros((20, 20, 3), np.uint8), "depth": depth}, PLAIN._replace(scale=1.5, down=0.4)
    result = Augment(zoom=(1.5,)).apply(arrays, {"depth": SmoothDepth()}, view)["depth"]
    values = np.unique(np.round(result * 1.5, 4))
    np.testing.assert_allclose(values, [0, 5], atol=1e-3)


def test_renormalize_hook_is_used_where_the_rule_has_one():
    class Bare(Normals):
        renormalize = None

    normals = np.zeros((8, 8, 3), np.float32)
    normals[:, :4, 0], normals[:, 4:, 2] = 1, 1
    arrays, view = {"image": np.zeros((8, 8, 3), np.uint8), "normals": normals}, PLAIN._replace(scale=1.6, across=0.4)
    bare = Augment(zoom=(1.6,)).apply(arrays, {"normals": Bare()}, view)["normals"]
    unit = Augment(zoom=(1.6,)).apply(arrays, {"normals": Normals()}, view)["normals"]
    assert np.linalg.norm(bare, axis=-1).min() < 0.9
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [(30, 40), (90, 120)])
def test_plain_resize_keeps_metres_and_directions(rooms, size):
    rooms_resized = Rooms("val", rooms.folder.parent.parent, count=3, size=SIZE, tasks=rooms.tasks)
    rooms_resized.size = size
    sample = rooms_resized[0]
    assert tuple(sample["image"].shape) == (3, *size) and tuple(sample["normals"].shape) == (3, *size)
    depth = rooms.target(0, "depth")
    assert abs(float(sample["depth"].mean()) - depth.mean()) < 0.05
    assert depth.min() - 1e-3 <= float(sample["depth"].min()) and float(sample["depth"].max()) <= depth.max() + 1e-3


def test_low_resolution_target_stays_under_its_image_pixels():
    """A region map at 1/4 of the resolution is cropped like the image that shows the same regions."""
    coarse = np.arange(24 * 32).reshape(24, 32) // 40 % 7
    image = np.repeat(np.kron(coarse, np.ones((4, 4), int))[..., None] * 30, 3, axis=2).astype(np.uint8)

    class Map(Depth):
        name, interpolation = "map", "nearest"

        def zoom(self, target, scale):
            return target

    for down, across, mirrored in ((0.0, 0.0, False), (0.37, 0.81, False), (0.9, 0.13, True)):
        view = View(mirrored, 1.2, down, across, 1, 1, 1)
        result = Augment(zoom=(1.2,)).apply({"image": image, "map": coarse}, {"map": Map()}, view)
        assert result["map"].shape == coarse.shape
        shown = result["image"][2::4, 2::4, 0] / 30
        agree = np.abs(shown - result["map"]) < 0.1
        inside = boundary(result["map"]) == 0
        assert inside.any() and agree[inside].mean() > 0.97
