"""Readers of checkpoints, models, packed files and graphs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import Tensor, nn

from fuzz.reader import Reader
from symerge_dense.engine.checkpointing import newest_checkpoint
from symerge_dense.experts.importing.mmseg_config import literals
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.merging.packed_experts import Packing
from symerge_dense.models.checkpoint import load_model, save_model, state_hash
from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.mapped_files import INDEX
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.weight_files import read_plain
from symerge_dense.pipeline.file_merge import open_packed
from symerge_dense.pipeline.file_merge.merge import FileMerge
from symerge_dense.pipeline.file_merge.pack import FilePack
from symerge_dense.pipeline.file_merge.unpack import FileUnpack
from symerge_dense.progress import silent
from symerge_dense.registry import MERGERS
from symerge_dense.studies.language.laboratory import _kept, _save
from symerge_dense.testing.tiny import CNN, PREPROCESSING, SIZE

State = dict[str, Tensor]
WEIGHTS: State = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2), "count": torch.tensor(3)}
OTHERS: State = {name: value + 1 for name, value in WEIGHTS.items()}


def state_of(found: Any) -> str:
    return state_hash(found.state)


def zipped(folder: Path) -> Sequence[Path]:
    """Files of ``torch.save``: plain, nested, with harmless objects, and of a newer protocol."""
    nested = {"state_dict": OTHERS, "meta": {"epoch": 3}, "args": argparse.Namespace(rate=0.1), "best": np.float64(0.5)}
    paths = [folder / name for name in ("a.pth", "b.ckpt", "c.pt")]
    torch.save(WEIGHTS, paths[0])
    torch.save(nested, paths[1])
    torch.save({"model": WEIGHTS}, paths[2], pickle_protocol=4)
    return paths


def legacy(folder: Path) -> Sequence[Path]:
    """Of PyTorch before 1.6: no checksums."""
    paths = [folder / "a.pth", folder / "b.pth"]
    torch.save(WEIGHTS, paths[0], _use_new_zipfile_serialization=False)
    torch.save({"state_dict": OTHERS}, paths[1], pickle_protocol=4, _use_new_zipfile_serialization=False)
    return paths


def safetensors(folder: Path) -> Sequence[Path]:
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    save_file(WEIGHTS, paths[0], {"format": "pt"})
    save_file({name: value.half() for name, value in OTHERS.items()}, paths[1])
    return paths


def shards(folder: Path) -> Sequence[Path]:
    """The index of two shards, which lie where the damaged one will."""
    place = folder / "damaged"
    place.mkdir()
    names = {name: f"model-{number:05}-of-00003.safetensors" for number, name in enumerate(WEIGHTS, 1)}
    for name, file in names.items():
        save_file({name: WEIGHTS[name]}, place / file)
    index = folder / f"model.safetensors{INDEX}"
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": names}))
    return [index]


def run_checkpoint(folder: Path) -> Sequence[Path]:
    path = folder / "iter_3.pth"
    meta = {"iter": 3, "epoch": 0, "fingerprint": "f"}
    torch.save({"meta": meta, "state_dict": WEIGHTS, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, path)
    return [path]


def resume(path: Path) -> Any:
    with silent():
        newest = newest_checkpoint(path.parent, "f")
    return newest and read_plain(newest)["state_dict"]


def models(folder: Path) -> Sequence[Path]:
    """Two model files of this package."""
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    network = {**CNN, "channels": (4, 4, 4, 4), "stem_width": 4}
    for seed, (path, task) in enumerate(zip(paths, ("depth", "normals"), strict=True)):
        torch.manual_seed(seed)
        model = MultiTaskModel(network, {task: {"type": "Linear"}}, {task: {"type": task}}, **PREPROCESSING)
        save_model(path, model, {"image_size": list(SIZE), "training": {"rate": 0.1}})
    return paths


def weights_of(found: Any) -> str:
    return state_hash(found[0].state_dict())


def language_networks(folder: Path) -> Sequence[Path]:
    """Two kept networks of the study in language."""
    paths = [folder / "text-base.safetensors", folder / "text-expert.safetensors"]
    for path, state in zip(paths, (WEIGHTS, OTHERS), strict=True):
        _save(path, state)
    return paths


def read_language(path: Path) -> Any:
    """None, where it is set aside; else a state that the network takes."""
    with silent():
        state = _kept(path, WEIGHTS)
    network = nn.ParameterDict({name.replace(".", " "): value.double() for name, value in WEIGHTS.items()})
    if state is not None:
        network.load_state_dict({name.replace(".", " "): value for name, value in state.items()})
    return state


def mmseg_config(folder: Path) -> Sequence[Path]:
    """Texts that OpenMMLab keeps in a checkpoint's meta."""
    texts = (
        "model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=50), **{'pretrained': None})\n",
        "crop_size = (512, 1024)\nmodel = {'decode_head': {'type': 'FCNHead', 'dilations': [1, 2.5, -3]}}\n",
    )
    paths = [folder / f"{number}.py" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def read_config(path: Path) -> Any:
    return literals(path.read_text("utf-8", "replace"), ("model", "crop_size"), str(path))


def sources(folder: Path) -> dict[str, Path]:
    """A base and two experts of one matrix."""
    torch.manual_seed(0)
    base = {"fc.weight": torch.randn(40, 30), "fc.bias": torch.randn(40), "count": torch.tensor([3])}
    paths = {name: folder / f"{name}.safetensors" for name in ("base", "a", "b")}
    for path in paths.values():
        moved = {name: value + 0.01 * torch.randn(value.shape) for name, value in base.items() if name != "count"}
        save_file({**base, **moved}, path)
    return paths


def packed_experts(folder: Path) -> Sequence[Path]:
    found = sources(folder)
    base, experts = str(found.pop("base")), {task: str(path) for task, path in found.items()}
    with silent():
        for bits in (3, 4):
            FilePack(base, experts, str(folder / f"packed{bits}.safetensors"), Packing(bits)).write()
    return [folder / "packed3.safetensors", folder / "packed4.safetensors"]


def packed_merge(folder: Path) -> Sequence[Path]:
    found = sources(folder)
    base, experts = str(found.pop("base")), {task: str(path) for task, path in found.items()}
    with silent():
        FileMerge(
            MERGERS.build({"type": "emr"}),
            base,
            experts,
            str(folder / "packed.safetensors"),
            packed=True,
            hash_inputs=True,
        ).merge()
    return [folder / "packed.safetensors"]


def unpack(path: Path) -> Any:
    """Both tasks, by the command's own class."""
    out, found = path.parent / "out.safetensors", {}
    for task in ("a", "b"):
        with silent():
            FileUnpack(str(path), str(path.parent.parent / "base.safetensors"), task, str(out), overwrite=True).write()
        found[task] = state_of(read_foreign(out))
    return found


def open_experts(path: Path) -> Any:
    experts = open_packed(str(path), str(path.parent.parent / "base.safetensors"))
    return {task: {name: expert[name] for name in expert} for task, expert in experts.items()}


def graph(folder: Path) -> Sequence[Path]:
    """Small graphs that describe themselves as ours do."""
    paths = []
    for name, outputs in (("a", "raw"), ("b", "decided")):
        shape = [1, 3, *SIZE]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, *SIZE])
        weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1 / 3] * 3)
        body = helper.make_graph([helper.make_node("Conv", ["image", "w"], ["depth"])], "g", [image], [depth], [weight])
        proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        about = {"format": 1, "tasks": {"depth": {"type": "depth"}}, "outputs": outputs}
        helper.set_model_props(proto, {"symerge_dense": json.dumps(about)})
        onnx.save(proto, folder / f"{name}.onnx")
        paths.append(folder / f"{name}.onnx")
    return paths


def run_graph(path: Path) -> Any:
    model = OnnxModel(path)
    height, width = model.size or SIZE
    return model(torch.zeros(1, 3, min(height, 64), min(width, 64)))


READERS = [
    Reader("checkpoint .pth", "zip", zipped, read_foreign),
    Reader("checkpoint .pth, its bytes", "bytes", zipped, read_foreign, state_of),
    Reader("checkpoint .pth, mapped", "zip", zipped, lambda path: read_foreign(path, mapped=True), share=0.5),
    Reader("checkpoint before PyTorch 1.6", "bytes", legacy, read_foreign),
    Reader("checkpoint .safetensors", "safetensors", safetensors, read_foreign),
    Reader("index of shards", "json", shards, read_foreign, state_of, share=0.5),
    Reader("checkpoint of a run", "zip", run_checkpoint, resume, share=0.5),
    Reader("model file", "safetensors", models, load_model, weights_of, share=0.1),
    Reader("config in a checkpoint", "bytes", mmseg_config, read_config),
    Reader("networks of the study in language", "safetensors", language_networks, read_language, share=0.5),
    Reader("packed experts", "safetensors", packed_experts, open_experts, share=0.5),
    Reader("unpacking of experts", "safetensors", packed_experts, unpack, str, share=0.3),
    Reader("unpacking of a merge", "safetensors", packed_merge, unpack, share=0.3),
    Reader("exported .onnx", "bytes", graph, run_graph, share=0.5),
]
