"""Further labels of rooms: right by hand on a tiny scene, rendered only when asked for, moved rightly by a mirror."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from symerge_dense.datasets.rooms import labels
from symerge_dense.datasets.rooms import render as rendering
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.rooms.gbuffer import gbuffer
from symerge_dense.datasets.rooms.labels import LABELS, ORIENTATIONS
from symerge_dense.datasets.rooms.primitives import ball, box
from symerge_dense.datasets.rooms.raycast import camera_rays, first_hit, render
from symerge_dense.datasets.rooms.render import FIELDS, FURTHER, render_frame
from symerge_dense.datasets.rooms.scene import FACES, Camera, focal_length, random_scene
from symerge_dense.datasets.rooms.textures import KINDS, Texture
from symerge_dense.registry import TASKS
from symerge_dense.tasks.depth_order import DepthOrder
from symerge_dense.tasks.masks import OneClass
from symerge_dense.tasks.surface_classes import Layout

SIZE = (30, 40)
FRAMES = (
    "b432935a4af2322eed8488985e509a0c40a49ae2c39d2fc7faaf31051b6186ef"  # of six frames, before there were more labels
)


@pytest.fixture(scope="module")
def scene():
    """A room of 4 x 3 x 6 m, seen level along its length; a ball, a box left of it, a lamp on the right."""
    paint = Texture("wood", (0.8, 0.7, 0.6), (0.7, 0.6, 0.5))
    parts = (
        ball("objects", 0.4, (2.0, 0.0, 5.0), replace(paint, kind="noise")),
        box("furniture", (0.6, 0.8, 0.6), (0.9, 0.0, 5.0), replace(paint, kind="tiles")),
    )
    return replace(
        random_scene(np.random.default_rng(0)),
        size=np.array([4.0, 3.0, 6.0]),
        parts=parts,
        objects=(6, 7),
        faces=(paint,) * 6,
        lamp=np.array([3.9, 2.9, 4.0]),
        camera=Camera(np.array([2.0, 1.5, 1.0]), np.eye(3)),
    )


@pytest.fixture(scope="module")
def fields(scene):
    """Stored fields as the renderer keeps them."""
    kinds = FIELDS | FURTHER
    view = {**render(scene, SIZE), **gbuffer(scene, SIZE)}
    return {name: value.astype(kinds[name][0]) for name, value in view.items()}


def label(fields, name):
    needed, make = LABELS[name]
    return make(*(fields[field] for field in needed))


def seen(fields, name):
    """Pixels of the ball (6), the cube (7), or a face of the room."""
    return fields["object"] == {"ball": 6, "cube": 7, "floor": 2, "ceiling": 3, "left": 0, "right": 1, "far": 5}[name]


# -- geometry ----------------------------------------------------------------------------------------------------------
def test_height_is_zero_on_the_floor_and_that_of_things(fields):
    height = label(fields, "height")
    assert height[seen(fields, "floor")].max() < 1e-3
    np.testing.assert_allclose(height[seen(fields, "ceiling")], 3, atol=1e-3)
    assert 0.7 < height[seen(fields, "ball")].max() <= 0.8 + 1e-3
    row, column = 20, 7  # rows below the horizon look down: 1.5 m less the slope times the depth
    slope = (row + 0.5 - 15) / focal_length(40)
    np.testing.assert_allclose(height[row, column], 1.5 - slope * fields["depth"][row, column], atol=1e-4)


def test_height_and_layout_hold_where_the_camera_is_tilted():
    for seed in range(3):
        tilted = random_scene(np.random.default_rng(seed))
        view = {**render(tilted, SIZE), **gbuffer(tilted, SIZE)}
        height, faces = label(view, "height"), label(view, "layout")
        assert np.abs(height[view["object"] == 2]).max(initial=0) < 2e-3
        np.testing.assert_allclose(height[view["object"] == 3], tilted.size[1], atol=2e-3)
        bare = view["object"] < len(FACES)
        np.testing.assert_array_equal(faces[bare], view["object"][bare])
        np.testing.assert_allclose(label(view, "layout_depth")[bare], view["depth"][bare], rtol=1e-4)
        empty = render(replace(tilted, parts=(), objects=()), SIZE)
        np.testing.assert_array_equal(faces, empty["object"])
        np.testing.assert_allclose(label(view, "layout_depth"), empty["depth"], rtol=1e-4)


def test_curvature_is_that_of_the_ball_and_nothing_on_planes(fields):
    ball_pixels = seen(fields, "ball")
    np.testing.assert_allclose(label(fields, "curvature")[ball_pixels], 2.5)
    assert not label(fields, "curvature")[~ball_pixels].any() and ball_pixels.sum() > 20


def test_surfaces_face_where_they_face(fields):
    facing = label(fields, "orientation")
    expected = {"floor": "up", "ceiling": "down", "left": "right", "right": "left", "far": "viewer"}
    for face, name in expected.items():
        assert set(facing[seen(fields, face)]) == {ORIENTATIONS.index(name)}, face
    assert set(facing[seen(fields, "cube")]) <= {ORIENTATIONS.index(name) for name in ("up", "right", "viewer")}
    assert {"slanted", "up", "viewer"} <= {ORIENTATIONS[number] for number in facing[seen(fields, "ball")]}


def test_orientation_goes_by_gravity_and_heading_not_by_the_cameras_tilt():
    scene = random_scene(np.random.default_rng(4))
    view = {**render(scene, SIZE), **gbuffer(scene, SIZE)}
    facing = label(view, "orientation")
    assert set(facing[view["object"] == 2]) == {0} and set(facing[view["object"] == 0]) <= {3, 4}


def test_the_angle_of_view_is_the_cosine_between_ray_and_normal(fields):
    cosine = label(fields, "view_angle")
    row, column = np.argwhere(seen(fields, "far"))[0]
    ray = np.array([(column + 0.5 - 20) / focal_length(40), (15 - row - 0.5) / focal_length(40), 1])
    np.testing.assert_allclose(cosine[row, column], 1 / np.linalg.norm(ray), rtol=1e-3)


def test_inverse_depth_is_one_over_depth(fields):
    np.testing.assert_allclose(label(fields, "inverse_depth") * fields["depth"], 1, rtol=1e-6)


# -- light -------------------------------------------------------------------------------------------------------------
def test_a_surface_is_lit_in_a_shadow_or_turned_away(fields, scene):
    """Every pixel by a second ray of its own, sampled densely and written out."""
    lit, shadow = label(fields, "light_visibility"), label(fields, "cast_shadow")
    focal = focal_length(40)
    wrong = 0
    for row, column in np.ndindex(*SIZE):
        ray = np.array([(column + 0.5 - 20) / focal, (15 - row - 0.5) / focal, 1])
        point = scene.camera.position + ray * fields["depth"][row, column]
        right, forward, up = fields["normals"][row, column].astype(float)
        way = scene.lamp - point
        faces = np.array([right, up, forward]) @ way > 0
        along = point + np.linspace(0.01, 0.99, 200)[:, None] * way
        hidden = (np.linalg.norm(along - [2, 0.4, 5], axis=1) < 0.4).any()
        hidden |= (np.abs(along - [0.9, 0.4, 5]) < [0.3, 0.4, 0.3]).all(1).any()
        expected = (float(faces and not hidden), float(faces and hidden))
        wrong += (lit[row, column], shadow[row, column]) != expected
    assert wrong <= 0.01 * lit.size
    assert shadow[seen(fields, "floor")].sum() > 3 and lit.mean() > 0.3
    assert not shadow[lit > 0].any()


def test_light_directions_point_to_the_lamp(fields, scene):
    direction = label(fields, "light_direction")
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-5)
    row, column = 25, 20
    ray = np.array([(column + 0.5 - 20) / focal_length(40), (15 - row - 0.5) / focal_length(40), 1])
    way = scene.lamp - scene.camera.position - ray * fields["depth"][row, column]
    np.testing.assert_allclose(direction[row, column], (way / np.linalg.norm(way))[[0, 2, 1]], atol=1e-4)


def test_corners_get_less_ambient_light(fields):
    ambient, floor = label(fields, "ambient_occlusion"), seen(fields, "floor")
    assert ambient.min() > 0 and ambient.max() <= 1
    row = np.flatnonzero(floor.any(1))[-1]
    assert ambient[row, 0] < ambient[row, 20]


# -- things, patterns, edges -------------------------------------------------------------------------------------------
def test_centres_are_those_of_what_is_seen(fields):
    way = label(fields, "centre_offset")
    for thing in ("ball", "cube"):
        rows, columns = np.nonzero(seen(fields, thing))
        row, column = rows[0], columns[0]
        expected = np.array([columns.mean() - column, rows.mean() - row]) * 100 / 40
        np.testing.assert_allclose(way[row, column], expected, rtol=1e-5)
    bare = fields["object"] < 6
    assert np.isnan(way[bare]).all() and np.isfinite(way[~bare]).all()
    np.testing.assert_array_equal(label(fields, "foreground"), ~bare)


def test_materials_are_the_textures(fields):
    material = label(fields, "material")
    for thing, kind in (("ball", "noise"), ("cube", "tiles"), ("floor", "wood")):
        assert set(material[seen(fields, thing)]) == {KINDS.index(kind)}


def test_occlusion_edges_are_steps_of_depth_between_pixels(fields, scene):
    """Against rays cast densely from pixel to pixel: somewhere between them the depth jumps, or it does not."""
    edges, steps = label(fields, "occlusion_edges"), np.zeros(SIZE, bool)
    rows, columns, share = *np.mgrid[: SIZE[0], : SIZE[1]], np.linspace(0, 1, 65)
    for down, across in ((0, 1), (1, 0)):
        first = [grid[: SIZE[0] - down, : SIZE[1] - across] for grid in (rows, columns)]
        ways = [(grid[..., None] + 0.5 + step * share) for grid, step in zip(first, (down, across), strict=True)]
        rays = camera_rays(scene.camera, SIZE, *(way.ravel().astype(np.float32) for way in ways))
        depth = first_hit(scene, scene.camera.position, rays)[0].reshape(ways[0].shape)
        jump = np.abs(np.diff(depth, axis=-1)).max(-1) > 0.12  # a floor sinks less within a sixty-fourth of a pixel
        steps[: SIZE[0] - down, : SIZE[1] - across] |= jump
        steps[down:, across:] |= jump
    assert steps.sum() > 40
    assert (edges[steps] == 1).mean() > 0.9 and (steps[edges == 1]).mean() > 0.9
    corner = np.zeros(SIZE, bool)  # of wall and wall, wall and floor
    corner[:, 1:] = (np.diff(fields["object"].astype(int)) != 0) & (fields["object"][:, 1:] < 6)
    corner[:, 1:] &= fields["object"][:, :-1] < 6
    assert corner.sum() > 5 and not edges[corner & ~steps].any()


def test_vanishing_directions_meet_where_the_rooms_lines_do(fields):
    way = label(fields, "vanishing_direction")
    np.testing.assert_allclose(way[0, 0], np.array([19.5, 14.5]) / np.hypot(19.5, 14.5), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(way, axis=-1)[np.isfinite(way[..., 0])], 1, rtol=1e-5)


def test_the_vanishing_point_lies_on_the_lines_between_floor_and_walls():
    scene = random_scene(np.random.default_rng(2))
    bare = replace(scene, parts=(), objects=())
    view = {**render(bare, (120, 160)), **gbuffer(bare, (120, 160))}
    way = label(view, "vanishing_direction")
    rows, columns = np.nonzero((view["object"][:, :-1] == 0) & (view["object"][:, 1:] == 2))  # left wall, floor
    if len(rows) > 5:
        line = np.array([columns[-1] - columns[0], rows[-1] - rows[0]], float)
        line /= np.linalg.norm(line)
        assert abs(line @ way[rows[len(rows) // 2], columns[len(rows) // 2]]) > 0.99


# -- the data set ------------------------------------------------------------------------------------------------------
def test_older_frames_keep_every_byte():
    found = hashlib.sha256()
    for index in range(6):
        frame = render_frame(index, "train", (64, 64), 0)
        for field in sorted(frame):
            found.update(frame[field].tobytes())
    assert found.hexdigest() == FRAMES


def test_further_fields_are_rendered_when_a_label_needs_them_and_once(tmp_path, monkeypatch):
    plain = Rooms("val", tmp_path, count=2, size=(6, 8), tasks={"depth": {}})
    assert sorted(path.stem for path in plain.folder.glob("*.npy")) == sorted(FIELDS)
    kept = {path: path.read_bytes() for path in plain.folder.iterdir()}
    asked = Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"height": {}, "cast_shadow": {}})
    assert asked.folder == plain.folder
    assert sorted(path.stem for path in plain.folder.glob("*.npy")) == sorted(FIELDS | FURTHER)
    assert {path: path.read_bytes() for path in kept} == kept, "the frames stay as they are"
    assert np.load(plain.folder / "pose.npy").shape == (2, 18), "of all frames of the set"
    monkeypatch.setattr(rendering, "render_further", None)
    assert Rooms("val", tmp_path, count=2, size=(6, 8), tasks={"curvature": {}})[1]["curvature"].shape == (1, 6, 8)


def test_a_lost_and_a_damaged_further_field_are_rendered_again(tmp_path, capsys):
    folder = Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"material": {}}).folder
    before = (folder / "pattern.npy").read_bytes()
    (folder / "pattern.npy").unlink()
    Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"material": {}})
    assert (folder / "pattern.npy").read_bytes() == before
    (folder / "pattern.npy").write_bytes(before[:-40])
    capsys.readouterr()
    Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"material": {}})
    assert "pattern.npy: damaged (" in capsys.readouterr().out
    assert (folder / "pattern.npy").read_bytes() == before


def test_twenty_labels_and_more_are_distinct_and_fifty_with_masks(tmp_path):
    variants = [name for name in TASKS if issubclass(TASKS[name], OneClass)]
    distinct = {*LABELS, "semantic_edges", "depth_order", "boundary_distance"}
    assert len(distinct) >= 20 and distinct.isdisjoint(variants) and len(distinct) + len(variants) >= 50
    rooms = Rooms("val", tmp_path, count=2, size=(12, 16), tasks={name: {} for name in [*distinct, *variants]})
    sample = rooms[0]
    for name, task in rooms.tasks.items():
        target = sample[name][None]
        task.check(torch.zeros(1, task.channels, 12, 16), target)
        assert name == "centre_offset" or task.valid(target).float().mean() > 0.99, name
        assert task.colorize(sample[name]).shape == (12, 16, 3)


def test_classes_are_named_in_the_renderers_order():
    assert [name.split()[-1] for name in Layout.names] == list(FACES)


@pytest.mark.parametrize("name", ["orientation", "layout", "centre_offset", "vanishing_direction", "light_direction"])
def test_a_mirrored_label_is_that_of_the_mirrored_room(scene, name):
    """Render the room built the other way round: the same label must come from ``flip``."""
    turned = (
        replace(scene.parts[0], center=np.array([2.0, 0.4, 5.0])),
        replace(scene.parts[1], center=np.array([3.1, 0.4, 5.0])),
    )
    other = replace(scene, parts=turned, lamp=np.array([0.1, 2.9, 4.0]))
    first, second = ({**render(one, SIZE), **gbuffer(one, SIZE)} for one in (scene, other))
    task = TASKS[name]()
    flipped = task.flip(np.ascontiguousarray(label(first, name)[:, ::-1]))
    expected = label(second, name)
    same = np.isclose(flipped, expected, atol=1e-3, equal_nan=True)
    assert same.mean() > 0.99


def test_a_zoom_makes_ways_in_the_picture_longer_and_leaves_the_rest():
    one = np.full((2, 2, 2), 3.0, np.float32)
    assert TASKS["centre_offset"]().zoom(one, 1.5).tolist() == np.full((2, 2, 2), 4.5).tolist()
    assert TASKS["vanishing_direction"]().zoom(one, 1.5).tolist() == one.tolist()
    distance = np.array([[2.0, -1.0]], np.float32)
    assert TASKS["boundary_distance"]().zoom(distance, 2.0).tolist() == [[4.0, -1.0]]
    assert "zoom" not in DepthOrder.moves and labels.TILT > 0
