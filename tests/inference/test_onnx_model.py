"""The onnxruntime backend: it computes what the file says, and refuses files that are not what they say."""

import json

import numpy as np
import onnx
import pytest
import torch
from builders.tiny import CNN, PREPROCESSING
from onnx import TensorProto, helper

from symerge_dense.inference.export import Export
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.inference.predictor import Predictor
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.multi_task import MultiTaskModel

SIZE = (32, 48)
ABOUT = {"format": 1, "tasks": {"depth": {"type": "depth"}}, "outputs": "raw"}


def test_a_file_is_a_backend_with_its_tasks_and_its_size(tmp_path):
    torch.manual_seed(0)
    tasks = {"depth": {"type": "depth"}, "normals": {"type": "normals"}}
    model = MultiTaskModel(CNN, {task: {"type": "Linear"} for task in tasks}, tasks, **PREPROCESSING).eval()
    save_model(tmp_path / "model.safetensors", model, {"image_size": list(SIZE)})
    Export(tmp_path / "model.safetensors", tmp_path / "model.onnx").write()
    backend = OnnxModel(tmp_path / "model.onnx")
    assert list(backend.tasks) == ["depth", "normals"] and backend.size == SIZE and not backend.decided
    images = torch.rand(1, 3, *SIZE) * 255
    with torch.no_grad():
        (wanted,) = model(images, mode="predict")
    for task, output in backend(images).items():
        assert output.dtype == torch.float32 and torch.allclose(output[0], wanted[task], atol=1e-4)
    several = backend(torch.cat([images, images / 2]))
    assert torch.equal(several["depth"][:1], backend(images)["depth"]) and len(several["normals"]) == 2
    with pytest.raises(ValueError, match=r"takes images of 3 x 32 x 48, not \(3, 40, 48\).*--dynamic"):
        backend(torch.zeros(1, 3, 40, 48))
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    ours = Predictor(tmp_path / "model.onnx", device="cpu", batch_size=2, flip=True)([pixels, pixels[:, :30]])
    theirs = Predictor(model, device="cpu", size=SIZE, flip=True)([pixels, pixels[:, :30]])
    for mine, wanted in zip(ours, theirs, strict=True):
        assert all(np.abs(mine[task] - wanted[task]).max() < 1e-4 for task in tasks)
        assert mine["normals"].shape == (45, wanted["depth"].shape[1], 3)


def write_graph(path, about=ABOUT, text=None, outputs=("depth",), channels=1, shape=(1, 3, *SIZE), kind="FLOAT"):
    """A small graph that any program could write: every output is the mean of the images' channels."""
    image = helper.make_tensor_value_info("image", getattr(TensorProto, kind), list(shape))
    sides = [shape[0], channels, *shape[2:]]
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in outputs]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [channels, shape[1], 1, 1], [1 / 3] * channels * shape[1])
    nodes = [helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Conv", ["real", "w"], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [image], found, [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if about is not None or text is not None:
        helper.set_model_props(proto, {"symerge_dense": text or json.dumps(about)})
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("kind", ["FLOAT", "UINT8"])
def test_images_come_as_the_graph_takes_them(tmp_path, kind):
    path = write_graph(tmp_path / "m.onnx", kind=kind, shape=("n", 3, "h", "w"))
    backend = OnnxModel(path)
    assert backend.size is None
    images = torch.randint(0, 256, (2, 3, 5, 7)).float()
    assert torch.allclose(backend(images)["depth"], images.mean(1, keepdim=True), atol=1e-3)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"about": None}, "does not say which tasks it has.*symerge export --to onnx"),
        ({"text": "{"}, "does not say which tasks it has"),
        ({"text": "[" * 100_000}, "does not say which tasks it has"),
        ({"about": {**ABOUT, "format": 2}}, "has format 2, this version reads up to 1; update the package"),
        ({"about": {**ABOUT, "outputs": "rwa"}}, "Did you mean 'raw'"),
        ({"about": {**ABOUT, "tasks": {}}}, "its metadata has no tasks"),
        ({"about": {**ABOUT, "tasks": {"depth": {"type": "os.system"}}}}, "unknown task 'os.system'"),
        ({"about": {**ABOUT, "tasks": {"depth": {"type": "depth", "x": 1}}}}, "its tasks cannot be built"),
        (
            {"about": {**ABOUT, "tasks": {"depth": {"type": "glow"}}, "plugins": {"task glow": "my_lab.glow"}}},
            "--import my_lab.glow",
        ),
        ({"outputs": ("depth", "more")}, "it says depth, and gives depth, more"),
        ({"shape": (4, 3, *SIZE)}, "it takes 4 images at a time, not one or any number"),
        ({"channels": 2}, r"depth should be \(N, 1, H, W\), and is \[1, 2, 32, 48\]"),
        ({"shape": (1, 4, *SIZE)}, r"should take one image \(N, 3, H, W\), and takes image \[1, 4, 32, 48\]"),
        ({"kind": "DOUBLE"}, r"its images are tensor\(double\), not float32 or uint8"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, options, said):
    path = write_graph(tmp_path / "m.onnx", **options)
    with pytest.raises(ValueError, match=said) as caught:
        OnnxModel(path)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("content", [b"", b"no graph at all", np.arange(999).tobytes()])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx cannot be run by onnxruntime .*write it again"):
        OnnxModel(path)
