"""Shifts of camera and light: no shift is bit for bit what it was, and each changes what it names."""

import dataclasses

import numpy as np
import pytest

from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.rooms.raycast import render
from symerge_dense.datasets.rooms.render import render_frame
from symerge_dense.datasets.rooms.scene import random_scene
from symerge_dense.datasets.rooms.shift import Shift

SIZE = (24, 32)
SCENE = random_scene(np.random.default_rng(5))
RIGHT, UP, FORWARD = SCENE.camera.axes


def test_without_a_change_the_scene_is_the_same_object_and_frames_are_where_they_were(tmp_path):
    assert Shift()(SCENE) is SCENE and Shift().name == ""
    plain, none = (Rooms("val", tmp_path, count=1, size=SIZE, shift=shift) for shift in (None, {"pitch": 0}))
    assert plain.folder == none.folder == tmp_path / "v1-24x32-s0" / "val-1"
    before = render_frame(0, "val", SIZE, 0)
    assert np.array_equal(plain.image(0), before["image"])


@pytest.mark.parametrize("degrees", [-20.0, 35.0])
def test_the_camera_turns_by_the_angle(degrees):
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    right, up, forward = Shift(pitch=degrees)(SCENE).camera.axes
    assert np.allclose(right, RIGHT) and np.allclose(
        [forward @ FORWARD, forward @ UP, up @ FORWARD], [cosine, sine, -sine]
    )
    right, up, forward = Shift(roll=degrees)(SCENE).camera.axes
    assert np.allclose(forward, FORWARD) and np.allclose([up @ UP, up @ RIGHT, right @ UP], [cosine, sine, -sine])
    both = Shift(pitch=degrees, roll=degrees)(SCENE).camera.axes
    assert np.allclose(both @ both.T, np.eye(3)) and np.allclose(np.cross(both[2], both[0]), both[1])


def test_the_camera_moves_up_but_not_through_the_ceiling_and_nothing_else_moves():
    moved = Shift(height=-0.5)(SCENE)
    assert np.allclose(moved.camera.position - SCENE.camera.position, [0, -0.5, 0])
    assert moved.parts is SCENE.parts and np.array_equal(moved.lamp, SCENE.lamp)
    assert Shift(height=9.0)(SCENE).camera.position[1] == pytest.approx(SCENE.size[1] - 0.15)
    assert Shift(height=-9.0)(SCENE).camera.position[1] == pytest.approx(0.15)


def test_light_scales_what_the_film_is_exposed_to_and_leaves_the_geometry():
    whole, half, none = (render(Shift(ambient=by, lamp=by)(SCENE), SIZE) for by in (1.0, 0.5, 0.0))
    dull = none["shading"] == 0  # all but what glows
    assert dull.mean() > 0.9 and np.array_equal(whole["depth"], half["depth"])
    exposure = [-np.log1p(-view["shading"][dull]) for view in (whole, half)]
    inner = np.isclose(exposure[0], 2 * exposure[1], rtol=1e-3)
    assert inner.mean() > 0.8, "but where four rays are averaged"
    ambient = render(Shift(lamp=0)(SCENE), SIZE)["shading"]
    assert (ambient <= whole["shading"] + 1e-6).all() and (ambient < whole["shading"] - 0.05).mean() > 0.1


def test_shifted_frames_have_a_folder_of_their_own_and_further_labels_follow_the_camera(tmp_path):
    tasks = {name: {"type": name} for name in ("depth", "vanishing_direction")}
    plain, low = (Rooms("val", tmp_path, count=1, size=SIZE, tasks=tasks, shift=s) for s in (None, {"pitch": -20}))
    assert (
        low.folder.parent.name == "v1-24x32-s0-pitch-20.0"
        and Rooms("val", tmp_path, count=1, size=SIZE, shift=Shift(pitch=-20.0)).folder == low.folder
    )
    assert len({Shift(pitch=20.0).name, Shift(pitch=20.000001).name, Shift(roll=20.0).name}) == 3
    assert not np.array_equal(plain[0]["depth"], low[0]["depth"])
    rows = [np.nanmean(view[0]["vanishing_direction"][1]) for view in (plain, low)]
    assert rows[1] < rows[0] - 0.2, "who looks down sees the vanishing point higher"
    assert dataclasses.asdict(low.shift) == {**dataclasses.asdict(Shift()), "pitch": -20}


@pytest.mark.parametrize(
    "shift, message",
    [
        ({"pich": 3}, "shift: .*Did you mean 'pitch'"),
        ({"roll": 90}, r"roll=90 degrees; give -60 to 60"),
        ({"lamp": -1}, "lamp=-1 is a factor; give 0 or more"),
        ({"height": "high"}, "height='high' must be a number"),
        ({"ambient": float("nan")}, "ambient=nan must be a number"),
        (0.3, r"shift=0\.3: give a dict with keys out of height, pitch"),
    ],
)
def test_a_wrong_shift_is_refused_before_anything_is_rendered(tmp_path, shift, message):
    with pytest.raises(ValueError, match=message):
        Rooms("val", tmp_path, count=1, size=SIZE, shift=shift)
    assert not list(tmp_path.iterdir())
