"""Folders whose numbers do not belong together, told by the edges."""

import numpy as np
import pytest
from builders.nyu_prepared import FOLDERS, arrays, write_prepared

from symerge_dense.preparation.check.check import check
from symerge_dense.preparation.check.pairing import FEWEST, SIZE, compare_folders, edge_map

NUMBERS = 14


@pytest.fixture(scope="module")
def maps():
    """{folder: edge maps of 14 unlike scenes}"""
    scenes = [arrays(number) for number in range(NUMBERS)]
    return {folder: [edge_map(folder, scene[folder]) for scene in scenes] for folder in FOLDERS}


def ahead(entries, offset):
    """Number n shows what was n - offset."""
    return [entries[(n - offset) % len(entries)] for n in range(len(entries))]


def nothing(folders=FOLDERS):
    return dict.fromkeys(folders, 0)


def test_folders_that_belong_together(maps):
    found = compare_folders(maps)
    assert found.offsets == nothing() and found.strangers == () and found.shifted == () and found.images == NUMBERS


@pytest.mark.parametrize("offset", [-2, -1, 1, 2])
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_odd_folder_and_its_shift(maps, folder, offset):
    found = compare_folders({**maps, folder: ahead(maps[folder], offset)})
    assert found.offsets == {**nothing(), folder: offset} and found.shifted == (folder,)


@pytest.mark.parametrize("pair", [("image", "label"), ("image", "depth"), ("label", "depth"), ("depth", "normal")])
def test_two_folders_tell_that_they_differ(maps, pair):
    found = compare_folders({pair[0]: maps[pair[0]], pair[1]: ahead(maps[pair[1]], 1)})
    assert found.offsets == {pair[0]: 0, pair[1]: 1}  # the first is called right: nothing else could decide


def test_of_two_halves_the_images_are_called_right(maps):
    found = compare_folders({**maps, "depth": ahead(maps["depth"], -1), "normal": ahead(maps["normal"], -1)})
    assert found.offsets == {**nothing(), "depth": -1, "normal": -1}


def test_a_gap_in_the_numbers_does_no_harm(maps):
    gappy = {folder: list(entries) for folder, entries in maps.items()}
    gappy["label"][4] = gappy["image"][9] = None
    assert compare_folders(gappy).offsets == nothing() and compare_folders(gappy).images == NUMBERS - 2
    gappy["depth"] = ahead(gappy["depth"], 1)
    assert compare_folders(gappy).shifted == ("depth",)


def test_scattered_numbers_are_not_judged(maps):
    """Every third number is there: no shift brings two of them together."""
    spread = {folder: [entry for kept in entries for entry in (kept, None, None)] for folder, entries in maps.items()}
    found = compare_folders(spread)
    assert found.offsets == nothing() and found.images == NUMBERS


def test_a_folder_in_another_order_is_a_stranger(maps):
    by_text = [int(name) for name in sorted(map(str, range(NUMBERS)))]  # 0, 1, 10, 11, 12, 13, 2, ...
    found = compare_folders({**maps, "label": [maps["label"][number] for number in by_text]})
    assert found.offsets == nothing() and found.strangers == ("label",)


def test_a_frame_too_many_in_the_middle_shifts_what_comes_after_it():
    rng = np.random.default_rng(5)
    views = rng.random((24, *SIZE)) ** 4
    sets = {folder: list((views + rng.normal(0, 0.05, views.shape)).astype(np.float32)) for folder in FOLDERS}
    assert compare_folders(sets).shifted == ()
    found = compare_folders({**sets, "depth": [*sets["depth"][:12], *sets["depth"][11:23]]})
    assert found.offsets == {**nothing(), "depth": 1} and found.first == 12


def test_too_few_images_say_nothing(maps):
    few = {folder: entries[: FEWEST - 1] for folder, entries in maps.items()}
    found = compare_folders({**few, "label": ahead(few["label"], 1)})
    assert found.offsets == nothing() and found.images == FEWEST - 1
    assert compare_folders({}).images == 0


def slow_film(steps, late):
    """Maps of a camera that turns slowly past things: frame n sees an excerpt that moves half a cell per frame.

    The image lags ``late`` frames behind the other folders, as a colour camera may behind its depth camera.
    """
    rng = np.random.default_rng(3)
    panorama = rng.random((SIZE[0], SIZE[1] + steps)) ** 4
    panorama = sum(np.roll(panorama, shift, axis=1) for shift in range(6)) / 6  # things are wider than a step
    views = [panorama[:, n // 2 : n // 2 + SIZE[1]] for n in range(steps)]

    def seen(noise):
        return [(view + rng.normal(0, noise, view.shape)).astype(np.float32) for view in views]

    return {"image": ahead(seen(0.1), late), **{folder: seen(0.05) for folder in FOLDERS[1:]}}


@pytest.mark.parametrize("late", [0, 1])
def test_frames_of_a_film_resemble_their_neighbours_and_are_left_alone(late):
    found = compare_folders(slow_film(60, late))
    assert found.offsets == nothing() and found.strangers == ()


# -- edge maps --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", FOLDERS)
def test_an_edge_lies_where_things_change_and_nowhere_else(folder):
    left, right = {
        "image": ([0.2] * 3, [0.7] * 3),
        "label": (3, 5),
        "depth": ([1.5], [3.0]),
        "normal": ([0, -1, 0], [1, 0, 0]),
    }[folder]
    array = np.stack([np.array(left if column < 96 else right, np.float64) for column in range(192)])[None]
    strength = edge_map(folder, array.repeat(144, axis=0))
    assert strength.shape == SIZE and strength.dtype == np.float32
    assert (strength[:, 23:25].max(axis=1) > 0.1).all()
    assert (strength[:, :21] == 0).all() and (strength[:, 27:] == 0).all()


@pytest.mark.parametrize(
    ("folder", "value"),
    [("label", -1), ("label", 255), ("depth", 0), ("depth", np.nan), ("normal", 0), ("normal", np.nan)],
)
def test_a_hole_is_no_edge(folder, value):
    array = np.broadcast_to(
        np.array({"label": 4.0, "depth": [2.0], "normal": [0.0, -1.0, 0.0]}[folder]),
        (96, 128, *{"label": (), "depth": (1,), "normal": (3,)}[folder]),
    ).copy()
    array[30:60, 40:90] = value
    assert (edge_map(folder, array) == 0).all()


def test_a_slanted_plane_is_no_edge():
    inverse = 0.2 + 0.001 * np.arange(128)[None] + 0.002 * np.arange(96)[:, None]
    assert edge_map("depth", 1 / inverse[..., None]).max() < 1e-3**0.5


# -- in a set ---------------------------------------------------------------------------------------------------------
def shift_files(folder, offset):
    """Rename so that n.npy holds what n - offset was; what falls off one end comes in at the other."""
    count = len(list(folder.glob("*.npy")))
    for number in range(count):
        (folder / f"{number}.npy").rename(folder / f"{number}.tmp")
    for number in range(count):
        (folder / f"{number}.tmp").rename(folder / f"{(number + offset) % count}.npy")


@pytest.mark.parametrize(("folder", "offset"), [("image", 1), ("label", 1), ("depth", 1), ("label", -1)])
def test_the_check_names_the_shifted_folder(tmp_path, folder, offset):
    root = write_prepared(tmp_path)
    shift_files(root / "train" / folder, offset)
    report = check(root, samples=2)
    found = [fault for fault in report.faults if "shifted" in fault.text]
    others = [other for other in FOLDERS if other != folder]
    here, there = (7, 8) if offset < 0 else (8, 7)
    assert [fault.path for fault in found] == [root / "train" / folder]
    assert found[0].text.startswith(f"{folder}/ seems shifted by {offset:+d} against {'/ and '.join(others)}/: ")
    assert found[0].text.endswith(f"{folder}/{here}.npy belongs to {others[0]}/{there}.npy")
    assert all(fault in found or folder == "depth" for fault in report.faults)  # shifted depth also belies the normals
