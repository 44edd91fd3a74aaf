"""Slim model files, timm's backbone alone, and folders for the Hub: each loads where it is meant to."""

import json

import pytest
import timm
import torch
from builders.tiny import CNN, PREPROCESSING, VIT
from safetensors import safe_open
from safetensors.torch import load_file

from symerge_dense.commands.cli import main
from symerge_dense.inference.export_weights import WeightsExport
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel

SIZE = (32, 48)


def write_model(path, spec):
    torch.manual_seed(0)
    tasks = {"depth": {"type": "depth"}, "normals": {"type": "normals"}}
    model = MultiTaskModel(spec, {task: {"type": "MultiScale", "width": 8} for task in tasks}, tasks, **PREPROCESSING)
    save_model(path, model, {"base_hash": "a" * 64, "image_size": list(SIZE)})
    return load_model(path)[0]


@pytest.mark.parametrize("half", [False, True])
def test_a_slim_file_has_the_wanted_tasks_and_is_a_model(tmp_path, half, capsys):
    model = write_model(tmp_path / "model.safetensors", CNN)
    words = ["--to", "safetensors", "--out", str(tmp_path / "slim.safetensors"), "--tasks", "depth"]
    assert main(["export", str(tmp_path / "model.safetensors"), *words, *(["--fp16"] if half else [])]) == 0
    assert "depth: largest difference" in capsys.readouterr().out
    slim, about = load_model(tmp_path / "slim.safetensors")
    assert list(slim.tasks) == ["depth"] and about["base_hash"] == "a" * 64 and about["image_size"] == list(SIZE)
    assert about["export"]["source_hash"] == model.record["hash"]
    assert about["export"]["check"]["depth"]["images"] == 4
    stored = load_file(tmp_path / "slim.safetensors")
    kinds = {value.dtype for value in stored.values() if value.ndim > 1}
    assert kinds == {torch.float16 if half else torch.float32}
    assert stored["backbone.body.bn1.running_var"].dtype == torch.float32
    image = torch.rand(1, 3, *SIZE) * 255
    with torch.no_grad():
        gap = (slim(image)["depth"] - model(image)["depth"]).abs().max()
    assert 0 < gap < 1e-2 if half else gap == 0


@pytest.mark.parametrize("spec, missing", [(CNN, []), (VIT, ["norm.weight", "norm.bias"])])
def test_timm_loads_the_backbone_alone(tmp_path, spec, missing, capsys):
    model = write_model(tmp_path / "model.safetensors", spec)
    out = tmp_path / "backbone.safetensors"
    assert (
        main(["export", str(tmp_path / "model.safetensors"), "--to", "safetensors", "--timm", "--out", str(out)]) == 0
    )
    line = next(row for row in capsys.readouterr().out.splitlines() if "timm.create_model(" in row)
    with safe_open(out, "pt") as file:
        record = json.loads(file.metadata()["timm"])
    assert record["missing"] == missing and record["source_hash"] == model.record["hash"]
    call = line.split("tensors. ")[1].split("; it leaves")[0].replace("'backbone.safetensors'", repr(str(out)))
    left = eval(call, {"timm": timm, "load_file": load_file})  # as a reader of the line would
    assert list(left.missing_keys) == missing and not left.unexpected_keys
    network = timm.create_model(**record["create_model"])
    network.load_state_dict(load_file(out), strict=not missing)
    image = torch.rand(1, 3, *SIZE)
    features = network.eval().forward_intermediates(image, indices=model.backbone.out_indices, intermediates_only=True)
    assert all(torch.equal(*pair) for pair in zip(features, model.backbone(image), strict=True))


def test_a_hub_folder_by_the_command(tmp_path, capsys):
    write_model(tmp_path / "model.safetensors", CNN)
    words = ["export", str(tmp_path / "model.safetensors"), "--to", "hub", "--out", str(tmp_path / "hub")]
    assert main([*words, "--license", "cc-by-4.0", "--repo-id", "me/rooms"]) == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and 'from_pretrained("me/rooms")' in card
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert main(words) == 2 and "hub exists already; choose another --out, or --overwrite it" in capsys.readouterr().err
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    assert main([*words, "--overwrite", "--tasks", "normals"]) == 0
    assert (tmp_path / "hub" / "notes.txt").exists()
    assert list(MultiTaskModel.from_pretrained(tmp_path / "hub").tasks) == ["normals"]
    assert main(["export", str(tmp_path / "hub"), "--to", "safetensors", "--out", str(tmp_path / "a.safetensors")]) == 0


def test_files_that_exist_and_wrong_names_are_refused(tmp_path):
    write_model(tmp_path / "model.safetensors", CNN)
    for out, said in (("x.pt", r"end in \.safetensors"), ("model.safetensors", "exists already.*--overwrite")):
        with pytest.raises(ValueError, match=said):
            WeightsExport(tmp_path / "model.safetensors", tmp_path / out).write()
    words = ["export", str(tmp_path / "model.safetensors"), "--to", "safetensors", "--out", "x.safetensors"]
    assert main([*words, "--timm", "--tasks", "depth"]) == 2
