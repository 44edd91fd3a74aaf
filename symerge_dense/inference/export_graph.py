"""What is exported: one module from RGB images in 0..255 to outputs at their size, and a description of it.

Shape legend: N images, H x W image size, h x w a head's own resolution.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

import symerge_dense
from symerge_dense.models.image_sizes import SIZE_ERRORS, Size, padded
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import plugins_of
from symerge_dense.models.weight_files import listing
from symerge_dense.registry import did_you_mean

GRAPH_FORMAT = 1
INPUT = "image"
INPUT_TYPES = {"float32": torch.float32, "uint8": torch.uint8}
OUTPUTS = ("raw", "decided")
DYNAMIC_SIZE = (240, 320)  # traced where images may have any size and the file names none
AXES = {"batch": (0,), "all": (0, 2, 3)}
AXIS_NAMES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is written.

    Args:
        size: (H,W) of its images; None takes what the model's file says.
        dynamic: what may change from call to call: 'no', 'batch' (the number of images) or 'all' (and their size).
        fp16: whether it computes with 16-bit weights; inputs and outputs stay as they are.
        outputs: 'raw', or 'decided': class ids, metres, unit vectors, as metrics and pictures use them.
        input_type: of the images, 'float32' or 'uint8'; both in 0..255.
    """

    size: tuple[int, int] | None = None
    dynamic: Literal["no", "batch", "all"] = "no"
    fp16: bool = False
    outputs: Literal["raw", "decided"] = "raw"
    input_type: Literal["float32", "uint8"] = "float32"

    def __post_init__(self) -> None:
        for name, known in (("dynamic", ("no", *AXES)), ("outputs", OUTPUTS), ("input_type", tuple(INPUT_TYPES))):
            if getattr(self, name) not in known:
                raise ValueError(did_you_mean(str(getattr(self, name)), known, name))
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size {self.size}: two numbers of pixels, height and width, e.g. --size 288 384.")


class ExportGraph(nn.Module):
    """One backbone, all heads, what comes before and after them: (N,3,H,W) images to one (N,...,H,W) output a task.

    Args:
        model: the network; it is copied.
        size: (H,W) of its images; None where they may have any size.
        options: half precision, and raw or decided outputs.

    Raises:
        ValueError: the backbone does not take the size, or float16 cannot hold the weights.
    """

    def __init__(self, model: MultiTaskModel, size: Size | None, options: GraphOptions) -> None:
        super().__init__()
        self.padded = None if size is None else model.backbone.padded_size(*size)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if size is not None:
            self.model.backbone = model.backbone.for_size(*size).eval().requires_grad_(False)
        self.decided = options.outputs == "decided"
        self.precision = torch.float16 if options.fp16 else torch.float32
        if options.fp16:
            for part in (self.model.backbone, self.model.heads):
                _halve(part)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of the model's tasks, each at the images' size.

        Args:
            image: (N,3,H,W) RGB in 0..255, of any number type.
        """
        model, (height, width) = self.model, image.shape[-2:]
        image = image.float()
        whole = image if self.padded is None else padded(image, self.padded)
        # the backbone's own forward would look up sizes, which a graph cannot
        features = list(model.backbone.body(model.normalised(whole).to(self.precision)))
        if model.backbone.channels_last:
            features = [rearrange(feature, "n h w c -> n c h w") for feature in features]
        found = []
        for name, head in model.named_heads():
            output = model.upsample(head(model.task_features(name, features)), whole.shape[-2:])
            output = output if self.padded is None else output[..., :height, :width]
            found.append(model.tasks[name].decide(output) if self.decided else output)
        return tuple(found)


def _halve(part: nn.Module) -> None:
    part.half()
    lost = [name for name, value in part.state_dict().items() if not bool(value.isfinite().all())]
    if lost:
        raise ValueError(f"float16 cannot hold {listing(lost)} (above 65504); export without --fp16.")


def graph_size(model: MultiTaskModel, options: GraphOptions) -> Size:
    """(H,W) that a graph is traced with, after a look at whether the backbone takes what is asked for.

    Args:
        model: the network.
        options: size and what is dynamic.

    Raises:
        ValueError: no size is known, or the backbone does not take it, or not as a dynamic one; with what it takes.
    """
    name = model.backbone.name
    size = options.size or model.image_size or (DYNAMIC_SIZE if options.dynamic == "all" else None)
    if size is None:
        raise ValueError("the model's file does not say how large its images are; give --size H W, e.g. 288 384.")
    try:
        model.backbone.padded_size(*size)
        with torch.no_grad():
            model(torch.zeros(1, 3, *size), only=list(model.tasks)[:1])
    except SIZE_ERRORS as error:
        raise ValueError(f"--size {size[0]} {size[1]} is not for backbone {name}: {error}") from error
    if options.dynamic == "all":
        _check_open_size(model, size)
    return size


def other_size(size: Size) -> Size:
    """Odd sides near three quarters of a size: what a graph of any size is checked with, too.

    Args:
        size: (H,W).
    """
    height, width = (max(side * 3 // 4, 33) | 1 for side in size)
    return height, width


def _check_open_size(model: MultiTaskModel, size: Size) -> None:
    backbone = model.backbone
    other = other_size(size)
    embed = backbone._embed()
    if embed is not None:
        patch = " x ".join(map(str, embed.patch_size))
        takes = f"it takes any --size H W, padded to its patches of {patch}"
        if embed.strict_img_size and embed.img_size is not None:
            takes = f"it takes --size {' '.join(map(str, embed.img_size))}"
        why = "computes with the size of its images"
    elif backbone.padded_size(*other) != other:
        step = max(backbone.strides)
        why, takes = "does not take every size", f"it takes --size H W, padded to multiples of {step}"
    else:
        return
    raise ValueError(
        f"--dynamic: backbone {backbone.name} {why}, so a graph of it has one size; {takes}. --dynamic batch leaves "
        "the number of images open."
    )


def describe_graph(model: MultiTaskModel, size: Size, options: GraphOptions) -> dict[str, Any]:
    """What an exported file says of itself, JSON-able.

    Args:
        model: the network, with the exported tasks alone.
        size: (H,W) that it was traced with.
        options: how it was written.
    """
    spec = model.spec
    learned = model.image_size if options.dynamic == "all" else size  # at which a program should use it
    about: dict[str, Any] = {
        "format": GRAPH_FORMAT,
        "tasks": spec["tasks"],
        "about": {
            name: {
                "channels": task.channels,
                "unit": task.unit,
                "classes": [str(entry) for entry in getattr(task, "class_names", ())],
            }
            for name, task in model.tasks.items()
        },
        "outputs": options.outputs,
        "input": {
            "name": INPUT,
            "shape": [
                AXIS_NAMES.get(i, side) if i in AXES.get(options.dynamic, ()) else side
                for i, side in enumerate((1, 3, *size))
            ],
            "type": options.input_type,
            "values": f"RGB in 0..255, channels first; normalised inside by {json.dumps(spec['preprocessing'])}",
        },
        "image_size": list(learned) if learned else None,
        "dynamic": options.dynamic,
        "fp16": options.fp16,
        "version": symerge_dense.__version__,
        "model_hash": model.record.get("hash"),
        "backbone": spec["backbone"],
    }
    plugins = plugins_of(spec)
    return about | ({"plugins": plugins} if plugins else {})
