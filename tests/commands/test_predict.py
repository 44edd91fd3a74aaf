"""``symerge predict``: what a user types, what is there afterwards, and how it ends."""

import json
import re

import cv2
import numpy as np
import pytest
from builders import tiny
from builders.films import cut, write_film
from builders.photos import photo, write_photos

from symerge_dense import Predictor
from symerge_dense.commands.cli import main
from symerge_dense.datasets.folder_dataset import FolderDataset
from symerge_dense.inference import outputs
from symerge_dense.models.checkpoint import save_model

LEARNED = [32, 48]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    _, experts, model = tiny.family()
    for name, network in {**experts, "merged": model}.items():
        save_model(folder / f"{name}.safetensors", network, {"image_size": LEARNED})
    return folder


@pytest.fixture
def predict(models, tmp_path, monkeypatch, capfd):
    """Runs the command in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, model="merged"):
        code = main(["predict", str(models / f"{model}.safetensors"), *map(str, words), "--device", "cpu"])
        told = capfd.readouterr()
        return code, told.out, told.err

    return run


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- what is there afterwards -----------------------------------------------------------------------------------------
def test_a_folder_becomes_panels(predict, tmp_path):
    write_photos(tmp_path / "photos", 3, (48, 64))
    code, out, _ = predict("photos", "--out", "seen", "--batch", 2)
    assert code == 0 and written(tmp_path / "seen") == [f"panels/{index:04d}.jpg" for index in range(3)]
    assert re.search(r"3 frames in [\d.]+ s, [\d.]+ frames/s: seen", out)


@pytest.mark.parametrize("kind", ["png", "npz", "exr"])
def test_raw_files_hold_what_predictor_gives_and_are_read_back(predict, models, tmp_path, kind):
    """From the model to a data set's targets; a tiny model's depth is not always one that a PNG file holds."""
    paths = write_photos(tmp_path / "photos", 2, (48, 64))
    code, out, _ = predict("photos", "--out", "seen", "--raw", kind)
    assert code == 0 and not (tmp_path / "seen" / "panels").exists() and "FolderDataset(root=" in out
    predictor = Predictor(models / "merged.safetensors", device="cpu")
    arguments = json.loads((tmp_path / "seen" / "dataset.json").read_text())
    assert arguments.pop("type") == "FolderDataset"
    data = FolderDataset(**arguments, tasks=predictor.tasks)
    for index, path in enumerate(paths):
        expected = predictor(path)
        for name, task in predictor.tasks.items():
            value, stored = expected[name], data.target(index, name)
            if name == "depth":  # metres up to 65.535 in PNG; nothing below 0 is a depth
                value = value.clip(1e-3, 65.535) if kind == "png" else np.where(value > 0, value, 0)
                stored = np.where(stored > 0, stored, 0)
            step = task.storage.scale / 2 if kind == "png" and not task.class_map else 0
            np.testing.assert_allclose(stored, value, rtol=1e-6, atol=step + 1e-6)


def test_a_video_becomes_a_video_of_panels_and_files_of_its_frames(predict, tmp_path):
    write_film(tmp_path / "clip.avi", frames=7, fps=12)
    code, _, _ = predict("clip.avi", "--out", "seen", "--raw", "png", "--panel", "--tasks", "depth", "--batch", 3)
    assert code == 0
    frames = [f"depth/clip_{index:06d}.png" for index in range(7)]
    assert written(tmp_path / "seen") == ["dataset.json", *frames, "panels/clip.mp4"]
    film = cv2.VideoCapture(str(tmp_path / "seen" / "panels" / "clip.mp4"))
    assert (film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)) == (12, 7)
    _, first = film.read()
    image = first[20:200, 4:244, ::-1]  # beneath the title, beside the margin
    assert abs(image.astype(int) - cv2.resize(photo(0, (48, 64)), (240, 180))).mean() < 15


def test_overlays_of_videos_are_one_video_a_task(predict, tmp_path):
    write_film(tmp_path / "a.mp4", frames=4)
    write_film(tmp_path / "b.mp4", frames=4)
    code, _, _ = predict("a.mp4", "b.mp4", "--out", "seen", "--overlay", "--fps", "5", "--limit", "2")
    names = ("depth", "normals", "segmentation")
    assert code == 0
    assert written(tmp_path / "seen") == [f"overlays/{name}/{film}.mp4" for name in names for film in "ab"]
    film = cv2.VideoCapture(str(tmp_path / "seen" / "overlays" / "depth" / "b.mp4"))
    assert (film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)) == (5, 2)


def test_inputs_of_one_name_do_not_overwrite_each_other(predict, tmp_path):
    for folder in ("one", "two"):
        write_photos(tmp_path / folder, 1, (48, 64))
    assert predict("one", "two", "--out", "seen", "--separate", "--tasks", "depth")[0] == 0
    assert written(tmp_path / "seen") == ["colors/depth/one_0000.png", "colors/depth/two_0000.png"]


def test_options_reach_the_predictor(predict, models, tmp_path):
    path = write_photos(tmp_path / "photos", 1, (80, 90))[0]
    predict("photos", "--out", "seen", "--raw", "npz", "--tile", 40, "--flip", "--native")
    with np.load(tmp_path / "seen" / "npz" / "0000.npz", allow_pickle=False) as found:
        expected = Predictor(models / "merged.safetensors", device="cpu", tile=40, flip=True, size="native")(path)
        assert all(np.array_equal(found[name], value) for name, value in expected.items())


# -- faults -----------------------------------------------------------------------------------------------------------
def test_broken_files_are_named_and_the_rest_goes_on(predict, tmp_path):
    paths = write_photos(tmp_path / "photos", 3, (48, 64))
    cut(paths[1], 0.4, "0001")
    cut(write_film(tmp_path / "clip.avi", frames=30))
    code, out, err = predict("photos", "cut.avi", "--out", "seen", "--raw", "npz", "--tasks", "depth", "--panel")
    assert code == 1 and "skipped: photos/0001.jpg: not a readable image" in err
    assert re.search(r"skipped: cut\.avi: ends after \d+ of 30 frames", err) and "Traceback" not in err
    files = written(tmp_path / "seen")
    assert {"panels/0000.jpg", "panels/0002.jpg", "panels/cut.mp4", "npz/0002.npz", "npz/cut_000000.npz"} < set(files)
    assert "npz/0001.npz" not in files and "split='seen/images.txt'" in out


def test_an_image_that_the_network_cannot_take_is_one_fault(predict, models, tmp_path):
    base = tiny.backbone({**tiny.VIT, "dynamic_img_size": False})
    save_model(models / "fixed.safetensors", tiny.expert("depth", base, 1))
    write_photos(tmp_path / "photos", 3, tiny.SIZE)
    cv2.imwrite(str(tmp_path / "photos" / "0001.jpg"), photo(0, (50, 50)))
    code, _, err = predict("photos", "--out", "seen", "--batch", 3, model="fixed")
    assert code == 1 and "skipped: photos/0001.jpg: this backbone is built for images of (32, 48)" in err
    assert written(tmp_path / "seen") == ["panels/0000.jpg", "panels/0002.jpg"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "--out", "seen"], "no such file or folder"),
        (["photos/*.bmp", "--out", "seen"], "no image and no video"),
        (["photos"], "--out DIR is missing"),
        (["photos", "--out", "file.txt"], "is a file; give a folder"),
        (["photos", "--out", "seen", "--tasks", "dept"], "Did you mean 'depth'"),
        (["photos", "--out", "seen", "--batch", "0"], "--batch 0: must be positive"),
        (["photos", "--out", "seen", "--fps", "-1"], "--fps -1.0: must be positive"),
        (["photos", "--out", "seen", "--alpha", "3"], "from 0 to 1"),
        (["photos", "--out", "seen", "--tile", "3"], "at least 8 pixels"),
        (["depth", "--out", ".", "--raw", "png"], "could overwrite them"),
        (["camera:99", "--out", "seen"], "see that it is connected"),
        (["photos", "--against", "x.safetensors", "--out", "seen"], "leave out --out"),
        (["photos", "--against", "x.safetensors"], "there is no file x.safetensors"),
    ],
)
def test_what_cannot_work_ends_before_any_work(predict, tmp_path, words, told):
    write_photos(tmp_path / "photos", 1)
    write_photos(tmp_path / "depth", 1)
    (tmp_path / "file.txt").write_text("")
    code, _, err = predict(*words)
    assert code == 2 and told in err and "Traceback" not in err
    assert not (tmp_path / "seen").exists()


def test_an_unknown_model_is_refused(predict, tmp_path):
    write_photos(tmp_path / "photos", 1)
    code, _, err = predict("photos", "--out", "seen", model="nothing")
    assert code == 2 and "nothing.safetensors" in err and "merged.safetensors" in err


def test_a_full_disk_ends_the_work_and_leaves_no_half_file(predict, tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", 3)

    def full(*_):
        raise OSError(28, "No space left on device", "seen/panels/0001.jpg")

    monkeypatch.setattr(outputs, "_write_picture", full)
    code, _, err = predict("photos", "--out", "seen")
    assert code == 2 and "No space left on device" in err and not (tmp_path / "seen").exists()


# -- against the experts ----------------------------------------------------------------------------------------------
def test_the_merged_model_is_measured_against_its_experts(predict, models, tmp_path):
    write_photos(tmp_path / "photos", 2, (48, 64))
    experts = [models / f"{name}.safetensors" for name in tiny.tasks()]
    code, out, _ = predict("photos", "--against", models / "[dn]*s.safetensors", *experts[:2])  # a pattern, and files
    assert code == 0 and re.search(r"one model is [\d.]+ times as fast", out)
    rows = dict(re.findall(r"(merged|experts)\s+│\s+[\d.]+\s+│\s+([\d,]+)", out))
    assert int(rows["experts"].replace(",", "")) > int(rows["merged"].replace(",", "")) > 0
    assert not (tmp_path / "seen").exists()
    code, _, err = predict("photos", "--against", experts[0])
    assert code == 2 and "one expert for each task" in err.replace("\n", " ")
