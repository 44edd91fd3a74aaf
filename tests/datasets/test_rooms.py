"""Rooms: frames that agree with themselves, a cache that is whole or absent, the same pixels for any worker count."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.prepared_python import ROOT, Python

from symerge_dense.datasets.class_names import NYU13
from symerge_dense.datasets.rooms import render as rendering
from symerge_dense.datasets.rooms.dataset import COUNTS, Rooms
from symerge_dense.datasets.rooms.raycast import render
from symerge_dense.datasets.rooms.render import FIELDS, render_frame, render_set
from symerge_dense.datasets.rooms.scene import FACES, Camera, focal_length, random_scene
from symerge_dense.datasets.targets import boundary
from symerge_dense.registry import TASKS

SIZE = (36, 48)
PLAIN = ("segmentation", "edges", "depth", "normals", "albedo", "shading")
"""Tasks whose labels are stored with the frames."""


@pytest.fixture(scope="module")
def rules():
    return {name: TASKS[name]() for name in PLAIN}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(scope="module")
def rooms(root, rules):
    return Rooms("train", root, count=4, size=SIZE, tasks=rules)


def brute_force_depth(scene, size, row, column):
    """Planar depth of one pixel, surface by surface, from the equations of planes and spheres in float64."""
    focal, axes = focal_length(size[1]), scene.camera.axes
    ray = (column + 0.5 - size[1] / 2) / focal * axes[0] + (size[0] / 2 - row - 0.5) / focal * axes[1] + axes[2]
    eye, best = scene.camera.position, np.inf
    for axis in range(3):
        for plane in (0.0, scene.size[axis]):
            t = (plane - eye[axis]) / ray[axis]
            best = min(best, t if t > 0 else np.inf)
    for part in scene.parts:
        start, ahead = part.rotation.T @ (eye - part.center), part.rotation.T @ ray
        if part.sphere:
            roots = np.roots([ahead @ ahead, 2 * ahead @ start, start @ start - part.half[0] ** 2])
            candidates = [r.real for r in roots if abs(r.imag) < 1e-12 and r.real > 0]
        else:
            candidates = []
            for axis in range(3):
                for side in (-1, 1):
                    t = (side * part.half[axis] - start[axis]) / ahead[axis]
                    inside = np.abs(start + t * ahead) <= part.half + 1e-9
                    if t > 0 and np.delete(inside, axis).all():
                        candidates.append(t)
        best = min([best, *candidates])
    return best


def test_depth_is_that_of_a_ray_tracer_written_out():
    rng, wrong = np.random.default_rng(3), 0
    for seed in range(3):
        scene = random_scene(np.random.default_rng(seed))
        depth = render(scene, SIZE)["depth"]
        for row, column in zip(rng.integers(0, SIZE[0], 20), rng.integers(0, SIZE[1], 20), strict=True):
            wrong += abs(depth[row, column] - brute_force_depth(scene, SIZE, row, column)) > 2e-3
    assert wrong == 0


def test_a_shadow_falls_where_something_stands_before_the_lamp():
    """Of the floor, shaded points (lamp hidden by a part, brute force) are darker than lit ones at equal distance."""
    for seed in range(12):
        scene = random_scene(np.random.default_rng(seed))
        view = render(scene, SIZE)
        floor = view["object"] == 2
        focal, axes = focal_length(SIZE[1]), scene.camera.axes
        rows, columns = np.nonzero(floor)
        rays = (
            ((columns + 0.5 - SIZE[1] / 2) / focal)[:, None] * axes[0]
            + ((SIZE[0] / 2 - rows - 0.5) / focal)[:, None] * axes[1]
            + axes[2]
        )
        points = scene.camera.position + rays * view["depth"][floor][:, None]
        assert np.abs(points[:, 1]).max() < 1e-3, "the floor is at height 0"
        hidden = np.array([blocked(scene, point) for point in points])
        shading = view["shading"][floor]
        inner = (boundary(view["object"]) == 0)[floor]
        if hidden[inner].sum() > 15 and (~hidden & inner).sum() > 15:
            assert np.median(shading[hidden & inner]) < np.median(shading[~hidden & inner]) - 0.1
            return
    pytest.fail("no scene with a clear shadow on the floor")


def blocked(scene, point):
    """Does a box (sampled densely along the way) stand between ``point`` and the lamp?"""
    way = point + np.linspace(0.01, 0.99, 60)[:, None] * (scene.lamp - point)
    for part in scene.parts:
        local = np.abs((way - part.center) @ part.rotation)
        inside = np.linalg.norm(local, axis=1) < part.half[0] if part.sphere else (local < part.half).all(1)
        if inside.any():
            return True
    return False


def test_every_target_has_its_stored_layout_and_range(rooms):
    expected = {
        "segmentation": (np.int64, SIZE),
        "edges": (np.float32, SIZE),
        "depth": (np.float32, SIZE),
        "normals": (np.float32, (*SIZE, 3)),
        "albedo": (np.float32, (*SIZE, 3)),
        "shading": (np.float32, SIZE),
    }
    for name, (dtype, shape) in expected.items():
        target = rooms.target(1, name)
        assert (target.dtype, target.shape) == (dtype, shape), name
    image = rooms.image(1)
    assert (image.dtype, image.shape) == (np.uint8, (*SIZE, 3))
    assert set(np.unique(rooms.target(1, "edges"))) == {0, 1}
    assert rooms.target(1, "depth").min() > 0.1
    np.testing.assert_allclose(np.linalg.norm(rooms.target(1, "normals"), axis=-1), 1, atol=1e-6)
    for name in ("albedo", "shading"):
        assert 0 <= rooms.target(1, name).min() <= rooms.target(1, name).max() <= 1
    assert set(np.unique(rooms.target(1, "segmentation"))) <= set(range(13))


def test_every_pixel_is_valid_for_every_task(rooms, rules):
    sample = rooms[0]
    for name, rule in rules.items():
        assert rule.valid(sample[name][None]).all(), name


def test_image_is_albedo_times_shading_and_a_little_noise(rooms):
    for index in range(len(rooms)):
        ideal = rooms.target(index, "albedo") * rooms.target(index, "shading")[..., None] * 255
        difference = rooms.image(index).astype(float) - ideal
        assert abs(difference.mean()) < 0.5
        assert 1 < difference.std() < 4, "sensor noise, not a second picture"


def test_surfaces_face_the_camera(rooms):
    normals = rooms.target(2, "normals")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    matrix = rooms.intrinsics
    ray = np.stack([(columns - matrix[0, 2]) / matrix[0, 0], np.ones(SIZE), (matrix[1, 2] - rows) / matrix[1, 1]], -1)
    assert ((normals * ray).sum(-1) < 1e-2).all(), "right, forward, up against the ray in the same axes"


def test_floor_is_below_and_ceiling_above(rooms):
    found = 0
    for index in range(len(rooms)):
        labels, normals = rooms.target(index, "segmentation"), rooms.target(index, "normals")
        for name, side in (("floor", 1), ("ceiling", -1)):
            up = normals[labels == NYU13.index(name), 2] * side
            assert (up > 0.5).all(), "channel 2 is up"
            found += up.size
    assert found > 100


def test_classes_are_varied():
    seen = np.zeros(len(NYU13), int)
    for index in range(24):
        view = render(random_scene(np.random.default_rng((9, index))), (18, 24))
        seen += np.bincount(view["label"].ravel(), minlength=len(NYU13)) > 0
    assert (seen > 0).all(), dict(zip(NYU13, seen, strict=True))
    rare = [NYU13.index(name) for name in ("bed", "sofa", "tv", "picture", "window", "ceiling", "books")]
    assert (seen[rare] < 24).all(), "none of these is everywhere"


def test_scene_faces_and_objects_have_distinct_ids():
    scene = random_scene(np.random.default_rng(1))
    assert len(scene.objects) == len(scene.parts)
    assert min(scene.objects) == len(FACES)
    by_object = {}
    for part, thing in zip(scene.parts, scene.objects, strict=True):
        by_object.setdefault(thing, set()).add(part.label)
    assert all(len(labels) == 1 for labels in by_object.values()), "a thing has one class"


def test_boundary_marks_both_sides_and_leaves_invalid_unknown():
    regions = np.zeros((4, 6), int)
    regions[:, 3:] = 1
    expected = np.zeros((4, 6))
    expected[:, 2:4] = 1
    np.testing.assert_array_equal(boundary(regions), expected)
    valid = np.ones((4, 6), bool)
    valid[:, 3] = False
    expected[:, 2:4] = [0, 255]
    np.testing.assert_array_equal(boundary(regions, valid), expected)


# -- determinism and cache ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_worker_count_changes_nothing(tmp_path, workers):
    count, size = rendering.FEW + 2, (6, 8)
    render_set(tmp_path / f"val-{count}", "val", count, size, 5, workers)
    for index in (0, 7, count - 1):
        frame = render_frame(index, "val", size, 5)
        for field, (dtype, _) in FIELDS.items():
            stored = np.load(tmp_path / f"val-{count}" / f"{field}.npy", allow_pickle=False)
            assert stored.dtype == dtype
            np.testing.assert_array_equal(stored[index], frame[field])


@pytest.mark.parametrize("other", [(1, "val", 0), (0, "train", 0), (0, "val", 1)], ids=["index", "split", "seed"])
def test_frames_differ_by_seed_split_and_index(other):
    index, split, seed = other
    first, second = render_frame(0, "val", SIZE, 0), render_frame(index, split, SIZE, seed)
    assert (first["image"] != second["image"]).mean() > 0.5


def test_fewer_frames_are_the_first_of_the_cached_ones(root, rooms):
    fewer = Rooms("train", root, count=2, size=SIZE)
    assert fewer.folder == rooms.folder and len(fewer) == 2
    np.testing.assert_array_equal(fewer.image(1), rooms.image(1))


def test_more_frames_get_a_folder_of_their_own_with_the_same_beginning(tmp_path):
    few, more = Rooms("test", tmp_path, count=1, size=(6, 8)), Rooms("test", tmp_path, count=3, size=(6, 8))
    assert few.folder != more.folder and few.folder.is_dir()
    np.testing.assert_array_equal(few.image(0), more.image(0))


def test_cache_path_says_version_size_seed_and_count(tmp_path):
    folder = Rooms("val", tmp_path, count=2, size=(6, 8), scene_seed=3).folder
    assert folder.relative_to(tmp_path).as_posix() == "v1-6x8-s3/val-2"
    assert sorted(path.stem for path in folder.glob("*.npy")) == sorted(FIELDS)


def test_default_counts():
    assert COUNTS == {"train": 450, "val": 200, "test": 200}


@pytest.mark.parametrize("workers", [1, 2])
def test_failed_render_leaves_nothing_behind(tmp_path, workers):
    """Every frame of a split without a number fails: neither a set nor a temporary folder stays."""
    with pytest.raises(ValueError, match="not in tuple"):
        render_set(tmp_path / "dev-20", "dev", 20, (6, 8), 0, workers)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_render_is_not_mistaken_for_a_set(tmp_path):
    """What a killed process leaves is a hidden folder, which nobody reads; the next run renders anew and removes it."""
    parent = tmp_path / "v1-6x8-s0"
    killed = (
        "import os, sys; from symerge_dense.fileio import temporary_folder as made\nwith made(sys.argv[1]): os.abort()"
    )
    subprocess.run([sys.executable, "-c", killed, parent / "val-1"], check=False)
    (left,) = parent.iterdir()
    (left / "image.npy").write_bytes(b"half")
    assert Rooms("val", tmp_path, count=1, size=(6, 8)).image(0).shape == (6, 8, 3)
    assert [path.name for path in parent.iterdir()] == ["val-1"]


def test_a_view_of_one_bare_wall_is_rendered():
    """Nothing to anti-alias: no part, one face in sight."""
    scene = random_scene(np.random.default_rng(0))
    axes = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])  # looks along +x
    bare = replace(scene, parts=(), objects=(), camera=Camera(scene.size / 2, axes))
    view = render(bare, (2, 4))
    assert set(np.unique(view["object"])) == {1}
    np.testing.assert_allclose(view["depth"], scene.size[0] / 2, rtol=1e-5)
    np.testing.assert_allclose(view["normals"], np.broadcast_to([0, -1, 0], (2, 4, 3)), atol=1e-6)


def test_second_writer_of_the_same_set_is_harmless(tmp_path):
    render_set(tmp_path / "val-1", "val", 1, (6, 8), 0)
    before = (tmp_path / "val-1" / "image.npy").read_bytes()
    render_set(tmp_path / "val-1", "val", 1, (6, 8), 0)
    assert (tmp_path / "val-1" / "image.npy").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["val-1"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def pickled(path):
    np.save(path, np.array([{}], object), allow_pickle=True)


def reshaped(path):
    np.save(path, np.zeros((1, 3), np.float32))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, pickled, reshaped, empty, Path.unlink])
def test_a_damaged_cache_file_is_named_and_rendered_again_when_it_is_asked_for(tmp_path, rules, damage, capsys):
    path = Rooms("val", tmp_path, count=1, size=(6, 8)).folder / "depth.npy"
    before = path.read_bytes()
    damage(path)
    Rooms("val", tmp_path, count=1, size=(6, 8))  # the image is whole, and nothing else was asked for
    assert "damaged" not in capsys.readouterr().out
    Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"depth": rules["depth"]})
    assert f"{path}: damaged (" in (told := capsys.readouterr().out) and "it is rendered again." in told
    assert path.read_bytes() == before


def test_a_file_that_is_damaged_under_way_is_named_with_the_remedy(tmp_path, rules):
    rooms = Rooms("val", tmp_path, count=1, size=(6, 8), tasks={"depth": rules["depth"]})
    truncate(rooms.folder / "depth.npy")
    worker = pickle.loads(pickle.dumps(rooms))  # opens the files itself
    with pytest.raises(ValueError, match=r"depth\.npy: damaged .*delete .*val-1 and it will be rendered again"):
        worker.target(0, "depth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "'train', 'val', 'test'"),
        ({"count": 0}, "at least 1"),
        ({"size": (0, 8)}, "both positive"),
        ({"tasks": {"dept": {}}}, "Did you mean 'depth'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        Rooms(**{"root": tmp_path, "count": 1, "size": (6, 8), **arguments})
    assert list(tmp_path.iterdir()) == [], "refused before anything is rendered"


def test_a_pickled_data_set_carries_no_pixels(rooms):
    rooms.image(0)
    assert len(pickle.dumps(rooms)) < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rooms)).image(3), rooms.image(3))


def test_two_processes_render_once_and_both_read(tmp_path):
    """torchrun's variables, gloo: rank 0 renders, rank 1 waits at the barrier and finds the set."""
    program = (
        "import sys, torch.distributed as d; from symerge_dense.datasets.rooms.dataset import Rooms;"
        "d.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=int(sys.argv[3]), world_size=2);"
        "s = Rooms('val', sys.argv[1], count=2, size=(6, 8)); print(s.image(1).sum());"
        "d.destroy_process_group()"
    )
    words = ["-c", program, tmp_path / "rooms", tmp_path / "meet"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [Python(*words, rank, env={**env, "LOCAL_RANK": str(rank)}) for rank in range(2)]
    printed = [run.printed().split() for run in runs]
    assert printed[0][-1] == printed[1][-1]
    assert [path.name for path in (tmp_path / "rooms" / "v1-6x8-s0").iterdir()] == ["val-2"]


def test_processes_that_form_no_group_need_not_wait_for_each_other(tmp_path, monkeypatch):
    """As in a study under torchrun, in which the first process of the machine is another one."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert len(Rooms("val", tmp_path, count=2, size=(6, 8))) == 2
