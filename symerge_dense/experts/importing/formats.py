"""The checkpoints that are imported: one class and a table of what each calls its parts."""

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

ONLY = "segmentation"  # the task of a head that goes without a task's name
UNIT = NetworkOptions(mean=(0.0,) * 3, std=(255.0,) * 3, align_corners=True, output_stride=8)  # images in [0, 1]
IMAGENET = NetworkOptions(
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), align_corners=False, output_stride=8
)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """A checkpoint's tensors by part, named as seen from the part: of the backbone, of each head by its task's name in
    the file, of what is left out (full names), and of what the format does not know (full names)."""

    backbone: State
    heads: dict[str, State]
    dropped: tuple[str, ...]
    unknown: State


@dataclass(frozen=True)
class Format:
    """How a program lays out its checkpoints.

    Args:
        backbone, heads: what the names of these parts begin with; ``task_names``: a task's name follows ``heads``.
        head: type of the head; inside it, tensors have ``inner`` before the name that the file gives them.
        predictor: tensor of a head whose length is the number of output channels.
        options: of the network, from what else the file holds; ``needs``: options that the head cannot go without.
        dropped: what the names of further tensors begin with that the network does not need.
        nested: whether the tensors stand under a key with others around them; None is either.
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
        """Whether both parts are there."""
        return all(any(name.startswith(prefix) for name in state) for prefix in (self.backbone, self.heads))

    def parts(self, state: Mapping[str, Tensor]) -> Parts:
        """The tensors by part."""
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
    """The format ``name``, or the one that the names of the tensors tell.

    Raises ValueError, naming what the tensors' names begin with and the known formats, where none or several fit.
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
        "of these."
    )
