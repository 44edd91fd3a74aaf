"""Inference: one merged model against its experts one after the other, in PyTorch and exported to ONNX."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from symerge_dense.fileio import optional_import
from symerge_dense.inference.backend import Backend, TorchModel
from symerge_dense.inference.export import Export
from symerge_dense.inference.export_graph import GraphOptions
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import RunConfig, load_config
from symerge_dense.pipeline.network import network
from symerge_dense.pipeline.profiling.estimate import image_size
from symerge_dense.pipeline.profiling.step import LARGE
from symerge_dense.pipeline.profiling.table import Row, contest, seconds_of
from symerge_dense.progress import say, silent, track

BATCHES = (1, 8)
CASES = (
    ("rooms_symerge", (20, 20)),
    ("nyuv2_dinov2s_symerge", (20, 5)),
    ("nyuv2_symerge", (5, 1)),
)
"""(config, rounds of each of ``BATCHES``): ResNet-18, ViT-S, ResNet-50, each at its config's size."""
PAUSE = 0.05  # seconds before each contender: the threads of onnxruntime spin for a while after a run


def inference_rows(device: torch.device, large: bool = True) -> Iterator[Row]:
    """Inference of all ``CASES``.

    Args:
        device: where to work.
        large: ``LARGE`` ones, too.
    """
    for name, rounds in CASES:
        if name in LARGE and not large:
            continue
        config = load_config(name)
        say(name)
        yield from measure_inference(config, image_size(config), rounds, device)


def measure_inference(
    config: RunConfig, size: tuple[int, int], rounds: Sequence[int], device: torch.device
) -> Iterator[Row]:
    """Seconds of a batch of images, from pixels to all tasks' outputs at the images' size.

    The networks have random weights, which timings do not depend on. Memory is that of the backbones' weights.

    Args:
        config: has backbone, heads and tasks.
        size: (H, W) of the images.
        rounds: of every contender, in turn, for each of ``BATCHES``.
        device: of PyTorch's models; exported ones run there, too, where onnxruntime can.

    Raises:
        ValueError: onnx, onnxscript or onnxruntime is not installed, or there are no rounds.
    """
    if min(rounds) < 1:
        raise ValueError(f"rounds={min(rounds)} must be at least 1.")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional_import(package, "benchmark inference", "export")
    torch.manual_seed(0)
    merged = network(config, TimmBackbone(**config.backbone), config.tasks).eval()
    models = {"merged": merged, **{task: _expert(merged, task) for task in config.tasks}}
    with tempfile.TemporaryDirectory() as folder:
        exported = {name: _exported(model, Path(folder) / name, size, device) for name, model in models.items()}
        native: dict[str, Backend] = {name: TorchModel(model, device) for name, model in models.items()}
        sides = {"experts": list(config.tasks), "merged": ["merged"]}
        contenders = {
            f"{side}, {program}": [backends[name] for name in names]
            for program, backends in (("PyTorch", native), ("ONNX", exported))
            for side, names in sides.items()
        }
        for batch, count in zip(BATCHES, rounds, strict=True):
            case = f"{config.name}: {len(config.tasks)} tasks, {batch} of {size[0]}x{size[1]}"
            yield from contest(
                case,
                list(_turns(contenders, _images(batch, size), count)),
                count=dict.fromkeys(contenders, batch),
                mebibytes={name: _mebibytes(merged) * len(backends) for name, backends in contenders.items()},
            )


def _images(batch: int, size: tuple[int, int]) -> Tensor:
    return torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(0)).float()


def _mebibytes(model: MultiTaskModel) -> float:
    return sum(weight.numel() * weight.element_size() for weight in model.backbone.parameters()) / 2**20


def _expert(model: MultiTaskModel, task: str) -> MultiTaskModel:
    expert = copy.deepcopy(model)
    expert.keep_tasks([task])
    return expert


def _exported(model: MultiTaskModel, path: Path, size: tuple[int, int], device: torch.device) -> Backend:
    say(f"export {path.name}")
    file = path.with_suffix(".safetensors")
    save_model(file, model)
    with silent():
        Export(file, path.with_suffix(".onnx"), graph=GraphOptions(size, dynamic="batch")).write()
    return OnnxModel(path.with_suffix(".onnx"), device.type)


def _turns(contenders: Mapping[str, list[Backend]], images: Tensor, rounds: int) -> Iterator[dict[str, float]]:
    for turn in track(range(rounds + 1), f"batches of {len(images)}"):
        found = {name: _spent(backends, images) for name, backends in contenders.items()}
        if turn:  # the first is the warm-up
            yield found


def _spent(backends: list[Backend], images: Tensor) -> float:
    time.sleep(PAUSE)
    return seconds_of(lambda: [backend(images) for backend in backends])
