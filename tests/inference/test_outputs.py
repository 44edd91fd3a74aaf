"""What is written: numbers that FolderDataset reads back, pictures and videos, and what is refused before."""

import json
import os
import resource
import shutil

import cv2
import numpy as np
import pytest
import torch
from builders import tiny
from builders.films import write_film
from builders.photos import photo, write_photos
from PIL import Image

from symerge_dense.datasets.folder_dataset import FolderDataset
from symerge_dense.inference.outputs import OutputOptions, Outputs, check_outputs, check_room
from symerge_dense.inference.raw_files import check_raw, data_set, reading_line, write_data_set, write_raw
from symerge_dense.inference.sources import Frame, find_sources
from symerge_dense.inference.video_files import video_file
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.vector import Vector

SIZE = (48, 64)
TASKS = {**tiny.tasks(), "edges": Edges()}


def prediction(seed, size=SIZE):
    """Values as Predictor gives them: ids, metres, unit vectors, yes or no."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(*size, 3)).astype(np.float32)
    return {
        "segmentation": rng.integers(0, 4, size, dtype=np.uint8),
        "depth": rng.uniform(0.3, 20, size).astype(np.float32),
        "normals": normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        "edges": rng.integers(0, 2, size).astype(np.float32),
    }


def half_a_step(task, kind):
    return 0.0 if task.class_map or kind != "png" else task.storage.scale / 2 + 1e-6


# -- numbers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["png", "npz", "exr"])
@pytest.mark.parametrize("out", ["predictions", "photos/predictions"])
def test_the_printed_line_reads_back_what_was_predicted(tmp_path, kind, out):
    sources = find_sources(write_photos(tmp_path / "photos", 2, SIZE))
    values = [prediction(index) for index in range(2)]
    for source, one in zip(sources, values, strict=True):
        assert write_raw(tmp_path / out, source.name, kind, TASKS, one) == {}
    arguments = data_set(tmp_path / out, sources, kind, TASKS)
    line = reading_line(arguments)
    made = eval(line.replace("targets=", "tasks=TASKS, targets="), {"FolderDataset": FolderDataset, "TASKS": TASKS})
    write_data_set(tmp_path / out / "dataset.json", arguments)
    told = json.loads((tmp_path / out / "dataset.json").read_text())
    assert told.pop("type") == "FolderDataset" and told == arguments
    for data in (made, FolderDataset(**told, tasks=TASKS)):
        assert len(data) == 2
        for index, one in enumerate(values):
            for name, task in TASKS.items():
                found = data.target(index, name)
                assert np.abs(found - one[name]).max() <= half_a_step(task, kind)
            sample = data[index]
            assert all(bool(task.valid(sample[name][None]).all()) for name, task in TASKS.items())


def test_png_files_are_what_other_programs_expect(tmp_path):
    one = prediction(0)
    write_raw(tmp_path, "a", "png", TASKS, one)
    depth = cv2.imread(str(tmp_path / "depth" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and abs(depth / 1000 - one["depth"]).max() <= 0.00051
    with Image.open(tmp_path / "segmentation" / "a.png") as picture:
        assert picture.mode == "P" and np.array_equal(np.array(picture), one["segmentation"])
        colors = TASKS["segmentation"].colorize(torch.from_numpy(one["segmentation"].astype(np.int64)))
        assert np.array_equal(np.array(picture.convert("RGB")), colors)
    normals = cv2.imread(str(tmp_path / "normals" / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert normals.dtype == np.uint16 and abs(normals / 32767.5 - 1 - one["normals"]).max() < 1e-4


def test_values_beyond_what_png_holds_are_cut_and_counted(tmp_path):
    one = prediction(0)
    one["depth"][:12] = 90.0  # a quarter of the rows
    one["depth"][12] = 0.0  # is no 'no label'
    assert write_raw(tmp_path, "a", "png", TASKS, one) == {"depth": 0.25}
    stored = cv2.imread(str(tmp_path / "depth" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert (stored[:12] == 65535).all() and (stored[12] == 1).all()
    assert write_raw(tmp_path, "a", "npz", TASKS, one) == {}


def test_a_line_names_the_images_that_were_predicted_alone(tmp_path):
    paths = write_photos(tmp_path / "photos", 4, SIZE)
    sources = find_sources(paths[1:3])
    (tmp_path / "photos" / "._x.jpg").write_bytes(b"")
    for source in sources:
        write_raw(tmp_path / "out", source.name, "png", TASKS, prediction(0))
    arguments = data_set(tmp_path / "out", sources, "png", TASKS)
    assert [len(FolderDataset(**arguments, tasks=TASKS)), arguments["split"]] == [2, "out/images.txt"]
    mixed = find_sources([paths[0], write_photos(tmp_path / "other", 1, SIZE)[0]])
    assert "images" not in data_set(tmp_path / "out", mixed, "png", TASKS)


def test_numbers_that_files_cannot_hold_are_refused_before_work():
    class Flow(Vector):
        name = "flow"
        channels = 2

    tasks = {"flow": Flow()}
    for kind in ("png", "exr"):
        with pytest.raises(ValueError, match=r"'flow' has 2 channels.*--raw npz"):
            check_raw(kind, tasks)
    check_raw("npz", tasks)


# -- pictures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pictures", "files"),
    [
        ("panel", ["panels/a.jpg"]),
        ("overlay", [f"overlays/{name}/a.jpg" for name in TASKS]),
        ("separate", [f"colors/{name}/a.png" for name in TASKS]),
        (None, []),
    ],
)
def test_pictures_of_an_image_go_to_their_folders(tmp_path, pictures, files):
    Image.fromarray(photo(0, SIZE)).save(tmp_path / "a.png")
    (source,) = find_sources([tmp_path / "a.png"])
    with Outputs(OutputOptions(tmp_path / "out", pictures), TASKS) as outputs:
        frame, one = Frame(source, 0, photo(0, SIZE)), prediction(0)
        assert outputs.render(frame, one, outputs.limits(frame, one)) == []
    found = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(found) == sorted(files)
    if pictures == "separate":
        depth = cv2.imread(str(tmp_path / "out" / "colors" / "depth" / "a.png"))[..., ::-1]
        row = torch.from_numpy(one["depth"])[None]
        assert np.array_equal(depth, TASKS["depth"].colorize_prediction(row))


def test_a_videos_colour_range_follows_its_frames_slowly(tmp_path):
    (source,) = find_sources([write_film(tmp_path / "clip.mp4")])
    outputs, one = Outputs(OutputOptions(tmp_path / "out"), TASKS), prediction(0)
    first = outputs.limits(Frame(source, 0, photo()), one)["depth"]
    second = outputs.limits(Frame(source, 1, photo()), {**one, "depth": one["depth"] + 10})["depth"]
    assert second == pytest.approx((first[0] + 1, first[1] + 1), abs=1e-3)


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "film.mp4"
    with pytest.raises(RuntimeError, match="in the middle"), video_file(path, 10) as write:
        write(photo(0, (51, 65)))
        raise RuntimeError("in the middle")
    assert not path.parent.exists()
    with video_file(path, 10) as write:
        for index in range(4):
            write(photo(index, (51, 65)))  # odd sides, which MP4 does not take
    film = cv2.VideoCapture(str(path))
    good, frame = film.read()
    assert good and frame.shape == (50, 64, 3) and film.get(cv2.CAP_PROP_FPS) == 10
    assert abs(frame[..., ::-1].astype(int) - photo(0, (51, 65))[:50, :64]).mean() < 12
    assert [entry.name for entry in path.parent.iterdir()] == ["film.mp4"]


def test_a_video_that_the_disk_takes_a_part_of_is_an_error(tmp_path):
    def film(path):
        with video_file(path, 10) as write:
            for index in range(4):
                write(photo(index, (48, 64)))

    film(tmp_path / "whole.mp4")
    size, before = (tmp_path / "whole.mp4").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (40, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError) as error:
                film(tmp_path / "film.mp4")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert error.value.filename == str(tmp_path / "film.mp4")
        assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


# -- refusals ---------------------------------------------------------------------------------------------------------
def test_outputs_among_inputs_are_refused(tmp_path):
    inputs = find_sources(write_photos(tmp_path / "depth", 1))
    with pytest.raises(ValueError, match=r"--out .*overwrite them; give another folder"):
        check_outputs(OutputOptions(tmp_path, None, "png"), inputs, TASKS)
    check_outputs(OutputOptions(tmp_path, "panel"), inputs, TASKS)
    check_outputs(OutputOptions(tmp_path / "depth", None, "png"), inputs, TASKS)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        check_outputs(OutputOptions(tmp_path / "file" / "deep"), [], TASKS)
    if os.geteuid():  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OSError, match="locked"):
            check_outputs(OutputOptions(tmp_path / "locked" / "out"), [], TASKS)


@pytest.mark.parametrize("options", [("panel", None), (None, "png"), ("overlay", "npz"), ("separate", "exr")])
def test_a_disk_without_room_is_refused(tmp_path, monkeypatch, options):
    sources = [(source, 1, 48 * 64) for source in find_sources(write_photos(tmp_path / "photos", 2))]
    check_room(OutputOptions(tmp_path / "out", *options), sources, TASKS)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"will be written, and 0 MiB are free"):
        check_room(OutputOptions(tmp_path / "out", *options), sources, TASKS)
