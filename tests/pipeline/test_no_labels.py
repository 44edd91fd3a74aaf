"""Runs without labels: files of experts and a folder of photos become one model and its agreement with the experts."""

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from builders import tiny
from builders.photos import cut_off, write_hidden_files, write_mixed_photos, write_photos
from builders.pipeline_tiny import tool
from safetensors.torch import save_file

from symerge_dense.adaptation.symerge_model import load_expert
from symerge_dense.datasets.image_files import read_image
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model, state_hash
from symerge_dense.pipeline.api import given_config
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.config_files import find_config
from symerge_dense.pipeline.train import train
from symerge_dense.report.agreement import read_record
from symerge_dense.report.results import ROWS, check_results

CONFIG = """
experts = dict(checkpoints=dict(segmentation=_home + "/segmentation.safetensors", depth=_home + "/depth.safetensors"))
base = dict(checkpoint=_home + "/base.safetensors")
data = dict(unlabelled=dict(type="ImageFolder", root=_home + "/photos", size=(32, 48)))
adaptation = dict(rounds=3, batch_size=4, save_every=2, recalibration_images=6)
"""


def write_home(folder):
    """base.safetensors, a file for each of two experts, and photos/ of one size: all that a run needs."""
    base, experts, _ = tiny.family()
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, folder / "base.safetensors")
    origin = state_hash(base.state_dict())
    for task in ("segmentation", "depth"):
        save_model(folder / f"{task}.safetensors", experts[task], {"base_hash": origin})
    write_photos(folder / "photos", 10)
    (folder / "short.py").write_text(f"_home = {str(folder)!r}\n{CONFIG}")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The files, and the run of a config that names them and nothing else."""
    folder = write_home(tmp_path_factory.mktemp("home"))
    results = train(load_config(folder / "short.py"), work_dir=str(folder / "run"))
    return SimpleNamespace(folder=folder, config=folder / "short.py", run=folder / "run", results=results)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """``refused(*words)`` is the message of ``symerge train`` that must refuse before it writes anything."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        before = files(tmp_path)
        assert tool("train.py", *words) == 2
        output = capsys.readouterr()
        assert "experts" not in output.out and files(tmp_path) == before
        assert output.err.startswith("error: ") and "Traceback" not in output.err
        return output.err

    return run


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def words(home, *experts):
    named = [f"{task}={home.folder / task}.safetensors" for task in experts or ("segmentation", "depth")]
    return ["--experts", *named, "--base", home.folder / "base.safetensors"]


# -- what a run leaves -------------------------------------------------------------------------------------------------
def test_single_values_stand_above_the_images_and_the_base_of_the_command_line(home):
    overrides = {"data.unlabelled.limit": 8, "adaptation.rounds": 2}
    config = given_config(home.config, overrides, images=[home.folder / "photos"], size=(32, 48), base="other.pth")
    assert config.data["unlabelled"]["limit"] == 8 and config.data["unlabelled"]["size"] == (32, 48)
    assert config.base == {"checkpoint": "other.pth"} and config.options.rounds == 2
    assert given_config(home.config, {"base.key": "teacher"}, base="other.pth").base["key"] == "teacher"
    shipped = find_config("rooms_symerge")  # in which types are classes
    rooms = given_config(shipped, {"adaptation.rounds": 2}, images=[home.folder / "photos"])
    assert rooms.options.rounds == 2 and set(rooms.data) == {"train", "unlabelled"}


def test_a_config_of_experts_a_base_and_photos_is_enough(home):
    config = load_config(home.config)
    assert list(config.tasks) == ["segmentation", "depth"] and config.tasks["segmentation"]["classes"] == 4
    assert config.backbone["name"] == "resnet10t" and list(config.preprocessing["mean"]) == [127.0] * 3
    assert config.heads["depth"]["width"] == 8
    names = {path.name for path in home.run.iterdir()}
    assert {"results.json", "merged.safetensors", "panels.png", "panels", "coefficients.png", "run.json"} <= names


def test_the_record_has_agreement_and_no_labelled_rows(home):
    record = read_record(home.run / "results.json")
    assert not {*ROWS, "delta_m", "delta_m_metrics"} & set(record)
    agreement = record["agreement"]
    assert (agreement["held_out_images"], agreement["adapted_images"]) == (2, 8)
    assert list(agreement["rows"]) == ["average", "initial", "merged"]
    for row in agreement["rows"].values():
        assert list(row["tasks"]) == ["segmentation", "depth"]
        assert 0 <= row["tasks"]["segmentation"]["pixel_accuracy"]["value"] <= 100
    with pytest.raises(ValueError, match=r"without labels.*no accuracy.*data\.test"):
        check_results(record)


def test_agreement_is_the_metric_with_the_experts_decision_as_target(home):
    """Recomputed without the package's evaluation, from the files alone."""
    paths = sorted((home.folder / "photos").iterdir())
    held_out = [paths[2], paths[7]]  # the middle of each half of ten
    merged, _ = load_model(home.run / "merged.safetensors")
    experts = {task: load_expert(home.folder / f"{task}.safetensors", task)[0].eval() for task in merged.tasks}
    same, errors = [], []
    with torch.no_grad():
        for path in held_out:
            pixels = cv2.resize(read_image(path), (48, 32), interpolation=cv2.INTER_AREA)
            image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()[None]
            ours = merged(image, mode="predict")[0]
            theirs = {task: expert(image, mode="predict")[0][task] for task, expert in experts.items()}
            same.append((ours["segmentation"].argmax(0) == theirs["segmentation"].argmax(0)).double().mean())
            known = theirs["depth"] > 0
            errors.append((ours["depth"] - theirs["depth"]).abs()[known].double())
    row = home.results["agreement"]["rows"]["merged"]["tasks"]
    assert row["segmentation"]["pixel_accuracy"]["value"] == pytest.approx(100 * float(torch.stack(same).mean()))
    assert row["depth"]["abs"]["value"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)


def test_held_out_photos_are_not_adapted_to(home):
    (path,) = (home.run / "labels").rglob("depth.npy")  # in a folder of its own where there are several views
    labels = np.load(path, mmap_mode="r")
    assert len(labels) == 8
    assert "held_out=2" in (home.run / "adaptation.py").read_text().replace(" ", "")


def test_the_merged_file_says_its_size_and_agreement(home):
    about = read_metadata(home.run / "merged.safetensors")
    assert about["image_size"] == [32, 48] and about["agreement"] == home.results["agreement"]
    assert "results" not in about


def test_a_finished_run_is_shown_again(home, capsys):
    assert tool("train.py", home.config, "--work-dir", home.run, "--resume") == 0
    output = capsys.readouterr().out
    assert "is complete" in output and "agreement with the experts on 2 held-out images (not accuracy" in output
    assert "task arithmetic" not in output and "Δm" not in output


def test_no_config_is_needed_at_all(home, tmp_path, monkeypatch, capsys):
    """The same run from the command line alone ends in the same model."""
    monkeypatch.chdir(tmp_path)
    options = ["rounds=3", "batch_size=4", "save_every=2", "recalibration_images=6"]
    asked = [*words(home), "--images", home.folder / "photos", "--size", 32, 48, "--work-dir", "run"]
    assert tool("train.py", *asked, "--cfg-options", *(f"adaptation.{option}" for option in options)) == 0
    own, first = (load_model(run / "merged.safetensors")[0].state_dict() for run in (tmp_path / "run", home.run))
    assert all(torch.equal(own[name], value) for name, value in first.items())
    assert read_record("run/results.json")["agreement"] == home.results["agreement"]


def test_photos_of_all_kinds_are_read(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kinds = write_mixed_photos(tmp_path / "mixed")
    write_hidden_files(tmp_path / "mixed")
    extra = write_photos(tmp_path / "more", 2, size=(64, 40))
    asked = [*words(home), "--images", "mixed", *extra, "--size", 32, 48, "--work-dir", "run"]
    assert tool("train.py", *asked, "--cfg-options", "adaptation.rounds=1", "adaptation.batch_size=4") == 0
    found = read_record("run/results.json")["agreement"]
    assert found["adapted_images"] + found["held_out_images"] == len(kinds) + 2


def test_files_beside_the_photos_that_are_not_read_are_remarked_once(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_photos("photos", 10)
    (tmp_path / "photos/extra.heic").write_bytes(b"x")
    assert tool("train.py", *words(home), "--images", "photos", "--cfg-options", "adaptation.rounds=1") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("1 file not read as images (it holds 1 .heic file); images are .jpg") == 1


def test_images_take_the_place_of_a_configs_data(home, tmp_path):
    config = tmp_path / "labelled.py"
    test = "dict(type='ImageFolder', root='nowhere')"
    config.write_text(f"_home = {str(home.folder)!r}\n{CONFIG}\ndata['test'] = {test}\n")
    asked = [config, "--images", home.folder / "photos", "--size", 32, 48, "--work-dir", tmp_path / "run"]
    assert tool("train.py", *asked, "--cfg-options", "adaptation.rounds=1") == 0
    assert "agreement" in read_record(tmp_path / "run" / "results.json")


# -- what is refused before any work -----------------------------------------------------------------------------------
def test_photos_of_different_sizes_are_named(home, refused, tmp_path):
    write_photos(tmp_path / "photos", 9)
    write_photos(tmp_path / "photos" / "x", 1, size=(64, 48))[0].rename(tmp_path / "photos" / "upright.jpg")
    (tmp_path / "photos" / "x").rmdir()
    text = refused(*words(home), "--images", "photos")
    assert "photos/0000.jpg is 48 x 64 pixels" in text and "photos/upright.jpg is 64 x 48" in text
    assert "--size 48 64" in text


def test_a_broken_photo_is_named(home, refused, tmp_path):
    paths = write_photos(tmp_path / "photos", 10)
    cut_off(paths[6])
    assert "photos/0006.jpg: not a readable image" in refused(*words(home), "--images", "photos")


def test_too_few_photos_are_counted(home, refused, tmp_path):
    write_photos(tmp_path / "photos", 6)
    text = refused(*words(home), "--images", "photos")
    assert (
        "6 images: 2 measure the agreement" in text and "Give 10 images or more or take adaptation.batch_size=4" in text
    )


def test_missing_folders_and_files_are_named(home, refused, tmp_path):
    assert "nowhere: no such folder" in refused(*words(home), "--images", "nowhere")
    assert "a.jpg: no such file" in refused(*words(home), "--images", "a.jpg")
    assert "there is no file gone.safetensors" in refused("--experts", "depth=gone.safetensors", "--images", "x")


def test_the_base_is_asked_for(home, refused):
    text = refused(*words(home)[:3], "--images", home.folder / "photos")
    about = read_metadata(home.folder / "segmentation.safetensors")
    assert "fine-tuned from" in text and "--base FILE" in text and about["base_hash"][:12] in text


def test_half_a_command_says_what_is_missing(home, refused):
    assert "give a config" in refused("--images", home.folder / "photos")
    assert "--size is the size of --images" in refused(home.config, "--size", 3, 4)


def test_an_expert_of_another_base_is_refused_before_work(home, refused, tmp_path):
    model, _ = load_model(home.folder / "depth.safetensors")
    shutil.copy(home.folder / "segmentation.safetensors", tmp_path)
    save_model(tmp_path / "depth.safetensors", model, {"base_hash": "f" * 64})
    experts = ["--experts", "segmentation=segmentation.safetensors", "depth=depth.safetensors"]
    text = refused(*experts, "--base", home.folder / "base.safetensors", "--images", home.folder / "photos")
    assert "do not share their base weights" in text and "depth: ffffffffffff" in text


def test_labels_that_the_disk_cannot_hold_are_measured(home, refused, monkeypatch):
    usage = shutil.disk_usage(home.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    text = refused(*words(home), "--images", home.folder / "photos", "--size", 32, 48)
    assert "labels of 10 images take 0.0 GiB" in text and "adaptation.labels='online'" in text


def test_an_unwritable_work_dir_is_refused(home, refused, tmp_path):
    (tmp_path / "file").write_text("")
    text = refused(*words(home), "--images", home.folder / "photos", "--work-dir", "file/run")
    assert "cannot be written" in text and "--work-dir" in text


def test_commands_that_need_labels_say_so(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert tool("compare.py", home.config, "--methods", "average") == 2
    assert "data has no 'test'" in capsys.readouterr().err
    assert tool("test.py", home.config, home.run / "merged.safetensors") == 2
    assert "unknown split 'test'" in capsys.readouterr().err
    assert tool("estimate.py", home.config) == 0


def test_validation_needs_labels(home, refused):
    text = refused(home.config, "--cfg-options", "val_interval=2")
    assert "val_interval=2 needs labels" in text
