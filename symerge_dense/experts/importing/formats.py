"""The formats of checkpoints that are imported: a class, and a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from symerge_dense.experts.importing.mmseg_config import config_options
from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.models.foreign_files import Foreign
from symerge_dense.registry import did_you_mean

ONLY = "segmentation"  # the task of a head whose file names no task
UNIT = NetworkOptions(mean=(0.0,) * 3, std=(255.0,) * 3, align_corners=True, output_stride=8)  # images in [0, 1]
IMAGENET = NetworkOptions(
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), align_corners=False, output_stride=8
)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """A checkpoint's tensors by part.

    Args:
        backbone: tensors by their names inside the backbone.
        heads: {task's name in the file: tensors by their names inside the head}.
        dropped: full names of tensors that are left out.
        unknown: tensors that the format does not know, by their full names.
    """

    backbone: State
    heads: dict[str, State]
    dropped: tuple[str, ...]
    unknown: State


@dataclass(frozen=True)
class Format:
    """How a program lays out its checkpoints.

    Args:
        name: of the format.
        backbone: prefix of the backbone's tensors.
        heads: prefix of the heads' tensors.
        options: function of (the file's ``meta``, the file's name) that returns the network's options.
        task_names: whether a task's name follows the prefix of the heads.
        head: type of the head in this package.
        inner: prefix of the file's tensor names inside that head.
        needs: options that the head requires.
        predictor: tensor of a head whose length is the number of output channels.
        dropped: prefixes of further tensors that the network does not need.
        nested: whether the tensors stand under a key with others around them; None for either.
    """

    name: str
    backbone: str
    heads: str
    options: Callable[[Mapping[str, Any], str], NetworkOptions]
    task_names: bool = False
    head: str = "DeepLab"
    inner: str = ""
    needs: tuple[str, ...] = ()
    predictor: str = "4.weight"
    dropped: tuple[str, ...] = ()
    nested: bool | None = None

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a checkpoint has tensors of both backbone and heads.

        Args:
            state: its tensors by name.
        """
        return all(any(name.startswith(prefix) for name in state) for prefix in (self.backbone, self.heads))

    def parts(self, state: Mapping[str, Tensor]) -> Parts:
        """A checkpoint's tensors by part.

        Args:
            state: its tensors by name.
        """
        parts = Parts({}, {}, tuple(name for name in state if name.startswith(self.dropped)), {})
        for name, value in state.items():
            if name.startswith(self.backbone):
                parts.backbone[name.removeprefix(self.backbone)] = value
            elif name.startswith(self.heads):
                inside = name.removeprefix(self.heads)
                task, _, rest = inside.partition(".") if self.task_names else (ONLY, "", inside)
                parts.heads.setdefault(task, {})[rest] = value
            elif name not in parts.dropped:
                parts.unknown[name] = value
        return parts

    def __str__(self) -> str:
        return f"{self.name} ({self.backbone}*, {self.heads}{'<task>.' if self.task_names else ''}*)"


def _always(options: NetworkOptions) -> Callable[[Mapping[str, Any], str], NetworkOptions]:
    return lambda meta, source: options


_MTL: dict[str, Any] = {"backbone": "encoder.", "heads": "decoders.", "task_names": True, "options": _always(UNIT)}
FORMATS = {
    form.name: form
    for form in (
        Format("libmtl", **_MTL, nested=False, dropped=("loss_scale",)),
        Format("fusionbench", **_MTL, nested=True),
        Format("torchvision", "backbone.", "classifier.", _always(IMAGENET), dropped=("aux_classifier.",)),
        Format(
            "mmseg",
            "backbone.",
            "decode_head.",
            config_options,
            head="MMSegHead",
            inner="head.",
            needs=("decode_head", "width", "in_index"),
            predictor="conv_seg.weight",
            dropped=("auxiliary_head.",),
        ),
    )
}


def format_of(foreign: Foreign, name: str = "auto") -> Format:
    """The format of a checkpoint.

    Args:
        foreign: the checkpoint.
        name: of the format; 'auto' finds it by the names of the tensors.

    Raises:
        ValueError: an unknown name, or no or several formats fit; the message shows the tensors' prefixes and the
            known formats.
    """
    if name not in ("auto", *FORMATS):
        raise ValueError(did_you_mean(name, ["auto", *FORMATS], "format"))
    tried = [
        form
        for form in FORMATS.values()
        if name == form.name or (name == "auto" and form.nested in (None, foreign.nested))
    ]
    fitting = [form for form in tried if form.fits(foreign.state)]
    if len(fitting) == 1:
        return fitting[0]
    prefixes = Counter(name.split(".")[0] for name in foreign.state)
    found = ", ".join(f"{prefix} ({count})" for prefix, count in prefixes.most_common(10))
    fits = f"fits {' and '.join(form.name for form in fitting)}" if fitting else "is of none of the formats tried"
    raise ValueError(
        f"{foreign.path} {fits}: its tensors begin with {found}. Known: "
        f"{'; '.join(map(str, FORMATS.values()))}. Choose one with --format, or rename the tensors to one "
        "of these. A timm backbone with a head of your own: --format timm --backbone NAME --head MODULE:FUNCTION."
    )
