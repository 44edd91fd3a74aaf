"""``symerge export``: a model for other runtimes, checked against PyTorch before it takes its name.

ONNX and torch.export graphs have preprocessing and upsampling inside. Files of weights are in export_weights.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from symerge_dense.fileio import atomic_write, check_writable, optional_import, writing
from symerge_dense.inference.export_check import Outputs, check_images, compare, report
from symerge_dense.inference.export_graph import (
    AXES,
    AXIS_NAMES,
    INPUT,
    INPUT_TYPES,
    ExportGraph,
    GraphOptions,
    describe_graph,
    graph_size,
    other_size,
)
from symerge_dense.inference.onnx_model import OnnxModel
from symerge_dense.models.checkpoint import load_model
from symerge_dense.models.hub import model_file
from symerge_dense.models.image_sizes import Size
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.weight_files import KEY
from symerge_dense.progress import say
from symerge_dense.registry import did_you_mean

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
TO_ONNX = "--to onnx"
OPSETS = range(18, 24)  # of ONNX: the exporter writes 18 and converts it
LARGEST = 2**31 - 2**20  # bytes of an ONNX file: the limit of its format, less room for the graph


@dataclass(frozen=True)
class Export:
    """One export of a graph.

    Args:
        model: a model file, or a folder of the Hub.
        out: the file to write.
        to: 'onnx' or 'torch-export'.
        graph: size, precision, outputs.
        tasks: the wanted tasks; none for all.
        check: image files and folders that the result is checked on; none renders rooms.
        opset: of ONNX.
        overwrite: replace ``out``.

    Raises:
        ValueError: an option is unknown, or does not fit the others.
    """

    model: str | Path
    out: str | Path
    to: Literal["onnx", "torch-export"] = "onnx"
    graph: GraphOptions = field(default_factory=GraphOptions)
    tasks: Collection[str] = ()
    check: Sequence[str | Path] = ()
    opset: int = OPSETS[0]
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.to not in SUFFIXES:
            raise ValueError(did_you_mean(self.to, SUFFIXES, "kind of graph"))
        out, suffix = Path(self.out), SUFFIXES[self.to]
        if out.suffix != suffix:
            raise ValueError(f"--out {out}: files of --to {self.to} end in {suffix}.")
        if out.exists() and not self.overwrite:
            raise ValueError(f"{out} exists already; choose another --out, or --overwrite it.")
        if self.opset not in OPSETS:
            raise ValueError(f"--opset {self.opset}: one of {OPSETS[0]} to {OPSETS[-1]}.")
        if self.to == "onnx":
            optional_import("onnx", TO_ONNX, "export")
            optional_import("onnxscript", TO_ONNX, "export")
            optional_import("onnxruntime", TO_ONNX, "export")

    def write(self) -> dict[str, Any]:
        """Write the file and check it; a file that differs too much from PyTorch never takes its name.

        Returns:
            The description in the file, with the differences under 'check'.

        Raises:
            ValueError: the model, the size or the images of the check are refused, the network cannot be exported, or
                its exported outputs differ too much.
        """
        model = opened(self.model, self.tasks)
        check_writable(Path(self.out).absolute().parent)
        if self.to == "onnx":
            _check_bytes(model, self.graph.fp16)
        size = graph_size(model, self.graph)
        batches = self._batches(size)
        about = describe_graph(model, size, self.graph)
        graph = ExportGraph(model, None if self.graph.dynamic == "all" else size, self.graph)
        write = _write_onnx if self.to == "onnx" else _write_torch_export
        with atomic_write(self.out) as temporary:
            say(f"{self.model}: writing {', '.join(model.tasks)} for images of {size[0]} x {size[1]}")
            with _explained(self.to, model, self.graph.dynamic), writing(self.out, temporary):
                exported, save = write(graph, self._example(size), self, temporary, about)
            found = compare(reference(model, self.graph), exported, batches, self.graph.fp16)
            where = "onnxruntime" if self.to == "onnx" else "torch.export"
            about["check"] = report(found, self.graph.outputs == "decided", self.graph.fp16, where)
            save()
        say(f"{self.out}: {Path(self.out).stat().st_size / 1e6:.1f} MB, input {INPUT} {about['input']['shape']}")
        return about

    def _example(self, size: Size) -> Tensor:
        return torch.zeros(1 if self.graph.dynamic == "no" else 2, 3, *size, dtype=INPUT_TYPES[self.graph.input_type])

    def _batches(self, size: Size) -> list[Tensor]:
        """Images of the check: one by one, and together and at another size where the graph leaves that open."""
        images = check_images(self.check, size).to(INPUT_TYPES[self.graph.input_type])
        if self.graph.dynamic == "no":
            return list(images.split(1))
        batches = [images[:1], images[1:]] if len(images) > 1 else [images, images.repeat(3, 1, 1, 1)]
        if self.graph.dynamic == "all":
            batches.append(check_images(self.check, other_size(size))[:2].to(images.dtype))
        return batches


def opened(path: str | Path, tasks: Collection[str]) -> MultiTaskModel:
    """A model with the wanted tasks.

    Args:
        path: its file, or a folder of the Hub.
        tasks: wanted; none for all.

    Raises:
        ValueError: ``load_model`` refuses the file, or it has no such task.
    """
    model, _ = load_model(model_file(path))
    if tasks:
        model.keep_tasks(tasks)
    return model


def reference(model: MultiTaskModel, options: GraphOptions) -> Callable[[Tensor], Outputs]:
    """What PyTorch gives in float32: images (N,3,H,W) to {task: output at their size}.

    Args:
        model: the network.
        options: raw or decided outputs.
    """

    def outputs(images: Tensor) -> Outputs:
        rows = model(images.float(), mode="predict")
        raw = {name: torch.stack([row[name] for row in rows]) for name in model.tasks}
        return {name: model.tasks[name].decide(raw[name]) for name in raw} if options.outputs == "decided" else raw

    return outputs


def _check_bytes(model: MultiTaskModel, fp16: bool) -> None:
    size = sum(value.numel() for value in model.state_dict().values()) * (2 if fp16 else 4)
    if size > LARGEST:
        raise ValueError(
            f"the weights are {size / 1e9:.1f} GB, an ONNX file holds 2 GB; export "
            f"{'' if fp16 else '--fp16, or '}--to torch-export."
        )


@contextlib.contextmanager
def _explained(to: str, model: MultiTaskModel, dynamic: str) -> Iterator[None]:
    """Quiet exporters, whose errors name the network."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except OSError:  # of the disk, not of the network
        raise
    except Exception as error:  # exporters raise whatever stumbles
        heads = ", ".join(sorted({type(head).__name__ for _, head in model.named_heads()}))
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "a fixed --size" if dynamic != "no" else "--to torch-export" if to == "onnx" else "--to safetensors"
        raise ValueError(
            f"{model.backbone.name} with {heads} cannot be written --to {to} ({first[:300]}); try {remedy}, or other "
            "--tasks."
        ) from error
    finally:
        logging.disable(before)


def _open_axes(dynamic: str) -> dict[str, Any] | None:
    axes = AXES.get(dynamic)
    return {INPUT: dict.fromkeys(axes, torch.export.Dim.AUTO)} if axes else None


Written = tuple[Callable[[Tensor], Outputs], Callable[[], None]]  # runs the file; writes it again, with its check


def _write_onnx(graph: ExportGraph, example: Tensor, job: Export, path: Path, about: dict[str, Any]) -> Written:
    import onnx

    program = torch.onnx.export(
        graph,
        (example,),
        input_names=[INPUT],
        output_names=list(graph.model.tasks),
        opset_version=job.opset,
        dynamo=True,
        dynamic_shapes=_open_axes(job.graph.dynamic),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    proto = program.model_proto
    _name_axes(proto.graph, job.graph.dynamic)

    def save() -> None:
        onnx.helper.set_model_props(proto, {KEY: json.dumps(about)})
        onnx.save(proto, str(path))

    save()
    return OnnxModel(path), save


def _name_axes(graph: Any, dynamic: str) -> None:
    """Call the open axes batch, height and width, and refuse those that the exporter fixed."""
    axes = graph.input[0].type.tensor_type.shape.dim
    fixed = [AXIS_NAMES[axis] for axis in AXES.get(dynamic, ()) if not axes[axis].dim_param]
    if fixed:
        raise RuntimeError(f"the network computes with a fixed {' and '.join(fixed)}")
    names = {axes[axis].dim_param: AXIS_NAMES[axis] for axis in AXES.get(dynamic, ())}
    for value in (*graph.input, *graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def _write_torch_export(graph: ExportGraph, example: Tensor, job: Export, path: Path, about: dict[str, Any]) -> Written:
    program = torch.export.export(graph, (example,), dynamic_shapes=_open_axes(job.graph.dynamic), strict=False)

    def save() -> None:
        held = io.BytesIO()  # a file that takes no more would end the process
        torch.export.save(program, held, extra_files={f"{KEY}.json": json.dumps(about)})
        path.write_bytes(held.getbuffer())

    save()
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    names = list(graph.model.tasks)
    return (lambda images: dict(zip(names, loaded(images), strict=True))), save
