"""An exported ONNX file as a program: images to outputs by onnxruntime, with the tasks that its metadata names.

The file is not trusted: its description and its inputs and outputs are checked before anything is computed, and tasks
are looked up by registered name. Nothing is imported because a file says so.

Shape legend: N images, C channels of a task, H x W image size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symerge_dense.fileio import optional_import, parsed_json
from symerge_dense.inference.export_graph import GRAPH_FORMAT, INPUT_TYPES, OUTPUTS
from symerge_dense.models.plugins import check_registered
from symerge_dense.models.task_specs import build_task
from symerge_dense.models.weight_files import KEY, existing
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import DenseTask

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
MOST_TEXT = 1 << 20  # characters of a description; ours have a few thousand
NO_MODEL = "give a file that symerge export --to onnx wrote"


class OnnxModel:
    """A file of ``symerge export --to onnx``.

    Args:
        path: the file.
        device: 'cuda' runs it on the GPU where onnxruntime has one, 'cpu' on the processor.

    Attributes:
        tasks: {name: task}, in the order of the graph's outputs.
        size: (H,W) of its images; None where the graph takes any.
        decided: whether it gives decisions (class ids, metres, unit vectors) in place of raw outputs.
        record: what the file says of itself.

    Raises:
        ValueError: onnxruntime is not installed, or the file is missing, damaged, of another program or not as it
            describes itself.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.path = existing(path)
        runtime = optional_import("onnxruntime", f"{self.path}", "export")
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        known = runtime.get_available_providers()
        wanted = [f"{name}ExecutionProvider" for name in (["CUDA"] if device.startswith("cuda") else []) + ["CPU"]]
        try:
            self.session = runtime.InferenceSession(
                str(self.path), settings, providers=[name for name in wanted if name in known]
            )
        except Exception as error:  # onnxruntime has a class of its own for every kind of fault
            first = str(error).splitlines()[0][:200]
            raise ValueError(
                f"{self.path} cannot be run by onnxruntime ({first}); {NO_MODEL}, or write it again."
            ) from error
        self.record = self._described()
        self.decided = self.record["outputs"] == "decided"
        self.tasks = self._tasks()
        self.size = self._checked_input()
        self._check_outputs()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs at the size of the images.

        Args:
            images: (N,3,H,W), RGB in 0..255; a graph of one image is run once for each.

        Returns:
            {task: raw output (N,C,H,W) float32}; of a file with decided outputs, what ``task.decide`` gives.

        Raises:
            ValueError: the graph takes no images of this shape, or fails on them.
        """
        sides = tuple(images.shape[1:])
        if any(isinstance(side, int) and side != given for side, given in zip(self._shape[1:], sides, strict=True)):
            fixed = " x ".join(map(str, self._shape[1:]))
            raise ValueError(
                f"{self.path} takes images of {fixed}, not {sides}; resize them, or export with --dynamic."
            )
        pixels = images.detach().cpu()
        pixels = pixels.round().clamp(0, 255).byte() if self._type is np.uint8 else pixels.float()
        chunks = pixels.contiguous().split(self._shape[0] if isinstance(self._shape[0], int) else len(pixels))
        try:
            found = [self.session.run(list(self.tasks), {self._input: chunk.numpy()}) for chunk in chunks]
        except Exception as error:  # a graph may be well formed, and fail on what it computes
            first = str(error).splitlines()[0][:200]
            raise ValueError(f"{self.path} fails when it is run ({first}); {NO_MODEL}, or write it again.") from error
        return {name: torch.from_numpy(np.concatenate(rows)) for name, *rows in zip(self.tasks, *found, strict=True)}

    # -- what the file says -----------------------------------------------------------------------------------------
    def _described(self) -> dict[str, Any]:
        try:
            text = self.session.get_modelmeta().custom_metadata_map.get(KEY, "")
            record = parsed_json(text) if len(text) <= MOST_TEXT else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("format"), int):
            raise ValueError(f"{self.path} does not say which tasks it has (no {KEY} in its metadata); {NO_MODEL}.")
        if record["format"] > GRAPH_FORMAT:
            raise ValueError(
                f"{self.path} has format {record['format']}, this version reads up to {GRAPH_FORMAT}; update the "
                "package."
            )
        if record.get("outputs") not in OUTPUTS:
            raise self._damaged(did_you_mean(str(record.get("outputs"))[:80], OUTPUTS, "kind of outputs"))
        return record

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.path} is damaged or was changed: {why} Export the model again.")

    def _tasks(self) -> dict[str, DenseTask]:
        specs = self.record.get("tasks")
        if not isinstance(specs, dict) or not specs:
            raise self._damaged("its metadata has no tasks.")
        try:
            check_registered({"heads": {}, "tasks": specs}, self.record.get("plugins"))
            return {name: build_task(name, spec) for name, spec in specs.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged(f"its tasks cannot be built: {error}") from error

    def _checked_input(self) -> tuple[int, int] | None:
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
            found = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise self._damaged(f"it should take one image (N, 3, H, W), and takes {found[:200]}.")
        if inputs[0].type not in NUMPY_TYPES:
            raise self._damaged(f"its images are {inputs[0].type}, not {' or '.join(INPUT_TYPES)}.")
        self._input, self._shape, self._type = inputs[0].name, list(inputs[0].shape), NUMPY_TYPES[inputs[0].type]
        height, width = self._shape[2:]
        if isinstance(self._shape[0], int) and self._shape[0] != 1:
            raise self._damaged(f"it takes {self._shape[0]} images at a time, not one or any number.")
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def _check_outputs(self) -> None:
        shapes = {entry.name: list(entry.shape) for entry in self.session.get_outputs()}
        if set(shapes) != set(self.tasks):
            raise self._damaged(f"it says {', '.join(self.tasks)}, and gives {', '.join(shapes)[:200]}.")
        for name, task in self.tasks.items():
            shape, channels = shapes[name], task.channels
            if not self.decided and (len(shape) != 4 or shape[1] != channels):
                raise self._damaged(f"{name} should be (N, {channels}, H, W), and is {shape}.")
            if self.size is not None and shape[-2:] != list(self.size):
                raise self._damaged(f"{name} should have the images' size {self.size}, and is {shape}.")
