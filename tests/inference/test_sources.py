"""Which files inputs name, what their outputs are called, and which frames come of them."""

import cv2
import numpy as np
import pytest
from builders.films import cut, write_film
from builders.photos import photo

from symerge_dense.inference.run import in_background
from symerge_dense.inference.sources import Clip, Source, find_sources, frames_of


def write(path, height=40, width=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), photo(0, (height, width)))
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.png", "._a.png"):
        write(tmp_path / "photos" / name)
    write(tmp_path / "photos" / "deeper" / "c.jpg")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    write_film(tmp_path / "photos" / "clip.mp4")
    return tmp_path


# -- which inputs -----------------------------------------------------------------------------------------------------
def test_folders_patterns_files_and_cameras_may_be_mixed(folder):
    inputs = [folder / "photos", str(folder / "photos" / "**" / "*.jpg"), folder / "photos" / "b.jpg", "camera:0"]
    found = find_sources(inputs)
    assert [(source.kind, source.name) for source in found] == [
        ("image", "a"),
        ("image", "b"),
        ("video", "clip"),
        ("image", "c"),
        ("camera", "camera0"),
    ]


def test_the_same_file_by_two_ways_counts_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(find_sources(["photos/a.png", folder / "photos" / "a.png", "./photos/../photos/a.png"])) == 1


def test_hidden_files_of_a_pattern_are_skipped_but_not_its_own_folder(tmp_path):
    for name in ("a.jpg", "._a.jpg", "__MACOSX/b.jpg"):
        write(tmp_path / ".cache" / "photos" / name)
    (found,) = find_sources([tmp_path / ".cache" / "**" / "*.jpg"])
    assert found.name == "a"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/1.jpg", "x/2.jpg"], ["1", "2"]),
        (["x/1.jpg", "y/1.jpg", "x/2.jpg"], ["x_1", "y_1", "2"]),
        (["x/1.jpg", "x/1.png"], ["1_jpg", "1_png"]),
        (["x/1.jpg", "y/1.jpg", "x/1.png"], ["x_1_jpg", "y_1_jpg", "x_1_png"]),
        (["p/x/1.jpg", "q/x/1.jpg"], ["x_1_jpg", "x_1_jpg-2"]),
        (["x/A.jpg", "y/a.jpg"], ["x_A", "y_a"]),
        (["x/1.jpg", "y/1.jpg", "z/x_1.jpg"], ["x_1", "y_1", "x_1-2"]),
    ],
)
def test_no_two_outputs_share_a_name(tmp_path, files, names):
    found = find_sources([write(tmp_path / name) for name in files])
    assert [source.name for source in found] == names
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("photo", "no such file or folder. Did you mean 'photos'"),
        ("nowhere/a.jpg", "nor its folder"),
        ("photos/notes.txt", "convert it"),
        ("photos/*.bmp", "no image and no video in this pattern"),
        ("empty", r"in this folder \(1 other entries\); .*empty/\*\*/\*.jpg"),
        ("camera:front", "a camera is camera:0"),
    ],
)
def test_what_names_nothing_is_refused(folder, monkeypatch, given, words):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("no image")
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=words):
        find_sources([given])


# -- their frames -----------------------------------------------------------------------------------------------------
def test_images_come_in_order_and_faults_are_frames_too(tmp_path):
    paths = [write(tmp_path / f"{index}.png", 20 + index) for index in range(9)]
    cut(paths[4], 0.5, "4")
    frames = list(frames_of(find_sources(paths), None, workers=3))
    assert [frame.source.name for frame in frames] == [str(index) for index in range(9)]
    assert [frame.pixels is None for frame in frames] == [index == 4 for index in range(9)]
    assert "4.png: not a readable image" in frames[4].fault and frames[8].pixels.shape == (28, 60, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_videos_frames_come_in_order_and_in_rgb(tmp_path, suffix):
    path = write_film(tmp_path / f"clip{suffix}", frames=5)
    (source,) = find_sources([path])
    assert (Clip(source).fps, Clip(source).count) == (12.0, 5)
    frames = list(frames_of([source], None, 1))
    assert [frame.index for frame in frames] == list(range(5)) and not any(frame.fault for frame in frames)
    for frame in frames:
        assert abs(frame.pixels.astype(int) - photo(frame.index, (48, 64))).mean() < 12
    assert len(list(frames_of([source], 2, 1))) == 2


def test_a_video_that_ends_too_early_says_after_how_many_frames(tmp_path):
    path = write_film(tmp_path / "clip.avi", frames=30)
    frames = list(frames_of(find_sources([cut(path)]), None, 1))
    read = len(frames) - 1
    assert 5 < read < 25 and all(frame.fault is None for frame in frames[:-1])
    assert f"ends after {read} of 30 frames" in frames[-1].fault
    assert frames_of(find_sources([path]), 3, 1) and len(list(frames_of(find_sources([path]), 3, 1))) == 3


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "no frames"])
def test_a_video_without_frames_is_named(tmp_path, kind):
    path = tmp_path / "clip.mp4"
    if kind == "cut":
        cut(write_film(tmp_path / "whole.mp4"), 0.5, "clip")
    elif kind == "no frames":
        write_film(path, frames=0)
    else:
        path.write_bytes(b"" if kind == "empty" else b"this is no video")
    (frame,) = frames_of(find_sources([path]), None, 1)
    assert frame.pixels is None and str(path) in frame.fault and "video" in frame.fault


def test_a_camera_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"camera:99 cannot be opened; see that it is connected"):
        Clip(Source("camera", "camera:99", "camera99"))


# -- in a thread ------------------------------------------------------------------------------------------------------
def test_a_generator_in_the_background_gives_all_and_raises_what_it_raises():
    def numbers():
        yield from range(50)
        raise OSError("the disk went away")

    taken = []
    with pytest.raises(OSError, match="went away"):
        for number in in_background(numbers(), 3):
            taken.append(number)
    assert taken == list(range(50))


def test_a_generator_that_is_left_early_is_closed():
    closed = []

    def numbers():
        try:
            for number in range(10**9):
                yield np.full(1, number)
        finally:
            closed.append(True)

    items = in_background(numbers(), 2)
    assert next(items)[0] == 0
    items.close()
    assert closed == [True]
