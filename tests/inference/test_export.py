"""Exported graphs give what PyTorch gives, at every size that they say they take; others are refused, and say why."""

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from builders.tiny import CNN, PREPROCESSING, VIT
from torch import nn

from symerge_dense.commands.cli import main
from symerge_dense.inference.export import Export
from symerge_dense.inference.export_graph import GraphOptions
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.inference.predictor import Predictor
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import HEADS

SIZE = (32, 48)
TASKS = {"segmentation": {"type": "segmentation", "classes": 4}, "depth": {"type": "depth"}}


def write_model(path, spec, heads=("Linear", "DeepLab"), size=SIZE, **options):
    """A model file with random weights, and BatchNorm statistics that are not those of a new network."""
    torch.manual_seed(0)
    heads = {task: {"type": head} for task, head in zip(TASKS, heads, strict=True)}
    model = MultiTaskModel(spec, heads, TASKS, **PREPROCESSING, **options)
    model.train()
    model(torch.rand(4, 3, *SIZE) * 255, mode="tensor")
    save_model(path, model.eval(), {} if size is None else {"image_size": list(size)})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a convolutional network, a transformer, and photos of two sizes."""
    folder = tmp_path_factory.mktemp("export")
    write_model(folder / "cnn.safetensors", CNN, align_corners=True)
    write_model(folder / "vit.safetensors", VIT, ("Linear", "MultiScale"))
    (folder / "photos").mkdir()
    for index, side in enumerate((40, 70)):
        image = np.random.default_rng(index).integers(0, 256, (side, 60, 3), np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{index}.png"), image)
    return folder


def predicted(path, images, decided=False):
    """{task: what PyTorch gives for the images}, by the model's file alone."""
    model, _ = load_model(path)
    with torch.no_grad():
        rows = model(images.float(), mode="predict")
    raw = {task: torch.stack([row[task] for row in rows]) for task in model.tasks}
    return {task: model.tasks[task].decide(raw[task]) if decided else raw[task] for task in raw}


# -- ONNX -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def open_graph(folder):
    """(file, printed text) of a graph for any number of images of any size, by the command."""
    out = folder / "open.onnx"
    words = ["--to", "onnx", "--out", str(out), "--dynamic", "--check", str(folder / "photos")]
    assert main(["export", str(folder / "cnn.safetensors"), *words]) == 0
    return out


@pytest.mark.parametrize("shape", [(1, 3, *SIZE), (3, 3, 33, 35), (2, 3, 64, 50)])
def test_an_open_graph_gives_what_pytorch_gives(folder, open_graph, shape):
    images = torch.randint(0, 256, shape)
    session = onnxruntime.InferenceSession(str(open_graph), providers=["CPUExecutionProvider"])
    found = session.run(list(TASKS), {"image": images.float().numpy()})
    for output, wanted in zip(found, predicted(folder / "cnn.safetensors", images).values(), strict=True):
        assert output.dtype == np.float32 and output.shape == tuple(wanted.shape)
        assert np.abs(output - wanted.numpy()).max() < 1e-4


def test_a_graph_says_what_it_is(folder, open_graph):
    proto = onnx.load(open_graph)
    onnx.checker.check_model(proto)
    about = json.loads({entry.key: entry.value for entry in proto.metadata_props}["symerge_dense"])
    assert about["tasks"] == TASKS and about["image_size"] == list(SIZE)
    assert about["about"]["depth"]["unit"] == "m" and len(about["about"]["segmentation"]["classes"]) == 4
    assert about["input"]["shape"] == ["batch", 3, "height", "width"] and "RGB in 0..255" in about["input"]["values"]
    assert about["model_hash"] == load_model(folder / "cnn.safetensors")[1]["hash"]
    sides = [side.dim_param or side.dim_value for side in proto.graph.output[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 4, "height", "width"] and [entry.name for entry in proto.graph.output] == list(TASKS)
    for found in about["check"].values():
        assert 0 < found["largest"] <= found["tolerance"] and found["images"] == 4  # 1 + 1, and both once more, smaller


def test_a_transformer_s_decisions_at_a_size_that_its_patches_do_not_divide(folder):
    """Padding and the resampled position embedding are in the graph; images come as uint8, ids go out as int64."""
    out = folder / "vit.onnx"
    options = GraphOptions(size=(37, 50), dynamic="batch", outputs="decided", input_type="uint8")
    about = Export(folder / "vit.safetensors", out, graph=options).write()
    assert about["input"]["shape"] == ["batch", 3, 37, 50] and about["check"]["segmentation"]["tolerance"] == 0
    images = torch.randint(0, 256, (3, 3, 37, 50), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    labels, depth = session.run(list(TASKS), {"image": images.numpy()})
    wanted = predicted(folder / "vit.safetensors", images, decided=True)
    assert OnnxModel(out).decided
    pixels = images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(Predictor(out, device="cpu")(pixels)["segmentation"], labels[0])
    assert labels.dtype == np.int64 and (labels == wanted["segmentation"].numpy()).mean() > 0.999
    assert np.abs(depth - wanted["depth"].numpy()).max() < 1e-4


# -- torch.export -----------------------------------------------------------------------------------------------------
def test_torch_export_in_half_precision(folder, capsys):
    out = folder / "half.pt2"
    words = ["--to", "torch-export", "--out", str(out), "--fp16", "--tasks", "depth"]
    assert main(["export", str(folder / "cnn.safetensors"), *words]) == 0
    printed = capsys.readouterr().out
    assert "depth: largest difference" in printed and "on 4 images in torch.export" in printed
    extra = {"symerge_dense.json": ""}
    loaded = torch.export.load(out, extra_files=extra)
    images = torch.rand(1, 3, *SIZE) * 255
    (depth,) = loaded.module()(images)
    wanted = predicted(folder / "cnn.safetensors", images)["depth"]
    assert depth.dtype == torch.float32 and 0 < float((depth - wanted).abs().max()) < 2e-2
    weights = [value for value in loaded.state_dict.values() if value.ndim == 4]
    assert weights and all(value.dtype == torch.float16 for value in weights)
    assert json.loads(extra["symerge_dense.json"])["check"]["depth"]["images"] == 4


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words, said",
    [
        (["--to", "onnx", "--out", "x.pt2"], "files of --to onnx end in .onnx"),
        (["--to", "onnx", "--out", "x.onnx", "--opset", "9"], "--opset 9: one of 18 to 23"),
        (["--to", "onnx", "--out", "x.onnx", "--size", "32", "0"], "--size 288 384"),
        (["--to", "onnx", "--out", "x.onnx", "--run", "."], "--run is for --to hub, not onnx; leave it out"),
        (["--to", "hub", "--out", "x", "--size", "32", "32"], "--size is for --to onnx and torch-export"),
        (["--to", "onnx", "--out", "x.onnx", "--tasks", "dept"], "Did you mean 'depth'?"),
        (["--to", "onnx", "--out", "x.onnx", "--check", "no.png"], "no.png"),
        (["--to", "onnx", "--out", "x.onnx", "--dynamic"], "it takes any --size H W, padded to its patches of 8 x 8"),
    ],
)
def test_what_cannot_be_exported_says_what_can(folder, capsys, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    assert main(["export", "vit.safetensors", *words]) == 2
    assert said in capsys.readouterr().err and not list(folder.glob("x*"))


def test_an_unknown_kind_of_graph_is_refused():
    with pytest.raises(ValueError, match=r"unknown kind of graph 'onxn'\. Did you mean 'onnx'"):
        Export("model.safetensors", "x.onnx", "onxn")
    with pytest.raises(ValueError, match=r"unknown outputs 'decide'\. Did you mean 'decided'"):
        GraphOptions(outputs="decide")


def test_a_size_has_to_come_from_somewhere(tmp_path):
    path = write_model(tmp_path / "cnn.safetensors", CNN, size=None)
    with pytest.raises(ValueError, match=r"give --size H W, e\.g\. 288 384"):
        Export(path, tmp_path / "x.onnx").write()


def test_a_backbone_of_one_size_names_it(tmp_path):
    path = write_model(tmp_path / "vit.safetensors", {**VIT, "dynamic_img_size": False}, ("Linear", "Linear"))
    with pytest.raises(ValueError, match=r"--size 64 64 is not for backbone vit_tiny.*built for images of \(32, 48\)"):
        Export(path, tmp_path / "x.onnx", graph=GraphOptions(size=(64, 64))).write()
    with pytest.raises(ValueError, match="it takes --size 32 48"):
        Export(path, tmp_path / "x.onnx", graph=GraphOptions(dynamic="all")).write()


def test_what_float16_cannot_hold_is_named(tmp_path):
    path = write_model(tmp_path / "cnn.safetensors", CNN)
    model, _ = load_model(path)
    with torch.no_grad():
        model.heads["depth"].get_submodule("4").bias.fill_(1e5)
    save_model(path, model, model.record)
    with pytest.raises(ValueError, match=r"float16 cannot hold 1: depth\.4\.bias .*without --fp16"):
        Export(path, tmp_path / "x.pt2", "torch-export", GraphOptions(fp16=True)).write()


class Odd(nn.Module):
    """A head that no graph can follow: it looks at values, or changes from call to call."""

    def __init__(self, in_channels, strides, channels, fault="looks"):
        super().__init__()
        self.predict, self.fault, self.calls = nn.Conv2d(in_channels[-1], channels, 1), fault, 0

    def forward(self, features):
        if self.fault == "looks" and float(features[-1].mean()) > 1e6:
            return self.predict(-features[-1])
        self.calls += 1
        return self.predict(features[-1]) + self.calls


@pytest.fixture
def odd_head():
    HEADS.register_module(module=Odd)
    yield
    del HEADS.module_dict["Odd"]


@pytest.mark.usefixtures("odd_head")
@pytest.mark.parametrize(
    "fault, said",
    [
        ("looks", r"resnet10t with ModuleHead cannot be written --to torch-export .*try --to safetensors"),
        ("counts", "the exported depth differs too much from PyTorch, so no file was written"),
    ],
)
def test_a_graph_that_is_not_the_network_is_not_kept(tmp_path, fault, said):
    model = MultiTaskModel(CNN, {"depth": {"type": "Odd", "fault": fault}}, {"depth": TASKS["depth"]}, **PREPROCESSING)
    save_model(tmp_path / "odd.safetensors", model.eval(), {"image_size": list(SIZE)})
    out = tmp_path / "odd.pt2"
    out.write_text("what was there before")
    with pytest.raises(ValueError, match=said):
        Export(tmp_path / "odd.safetensors", out, "torch-export", overwrite=True).write()
    assert out.read_text() == "what was there before" and len(list(tmp_path.iterdir())) == 2
