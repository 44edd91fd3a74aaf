"""A plain state dict of a timm backbone and a head of any kind: which of its tensors belongs to which."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from torch import Tensor, nn

from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.models.backbone import TimmBackbone, load_weights
from symerge_dense.models.module_head import ModuleHead
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.timm_weights import known_names, prefix_of
from symerge_dense.models.weight_files import listing, match_report
from symerge_dense.progress import say
from symerge_dense.registry import TASKS, did_you_mean

State = dict[str, Tensor]
RENAME = "--rename OLD=NEW changes the start of names"


@dataclass(frozen=True)
class TimmNetwork:
    """What a state dict does not tell of its network.

    Args:
        backbone: arguments of ``TimmBackbone``.
        head: spec of the head.
        task: registered name of the head's task.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    task: str

    def model(self, state: State, options: NetworkOptions, source: str) -> tuple[MultiTaskModel, list[str]]:
        """The network with its weights, after what matched is printed.

        Args:
            state: tensors of the file by name.
            options: mean and std (by default those of timm's weights), align_corners and output_stride.
            source: the file, for messages.

        Returns:
            The model, and names of the tensors that it does not need.

        Raises:
            ValueError: tensors and network do not match completely.
        """
        spec = {**self.backbone, **({"output_stride": options.output_stride} if options.output_stride else {})}
        backbone = TimmBackbone(**spec)
        inside, rest = _split(backbone, state, source)
        model = self._built(backbone, rest, options, source)
        report = load_weights(backbone, inside, source)
        self._fill(model, rest, source)
        return model, [name.removeprefix("backbone.") for name in report.dropped]

    def _built(self, backbone: TimmBackbone, rest: State, options: NetworkOptions, source: str) -> MultiTaskModel:
        """The network without weights; a task with classes gets as many as make the head's tensors fit."""
        if self.task not in TASKS:
            raise ValueError(did_you_mean(self.task, list(TASKS), "task"))
        mean, std = _colours(backbone.name, options)

        def build(task: Mapping[str, Any]) -> MultiTaskModel:
            heads = {self.task: dict(self.head)}
            return MultiTaskModel(backbone, heads, {self.task: task}, mean, std, bool(options.align_corners))

        if "classes" not in inspect.signature(TASKS[self.task]).parameters:
            return build({"type": self.task})
        counts = [value.shape[0] for value in reversed(rest.values()) if value.ndim and value.shape[0] > 1]
        for count in dict.fromkeys(counts):
            with torch.device("meta"):
                tried = build({"type": self.task, "classes": count})
            wanted = dict(_head(tried, self.task).state_dict())
            before = prefix_of(rest, wanted, source)
            if before is not None and all(
                rest[before + name].shape == value.shape for name, value in wanted.items() if before + name in rest
            ):
                return build({"type": self.task, "classes": count})
        raise ValueError(
            f"{source}: no number of classes makes the tensors beside the backbone fit the head {dict(self.head)}; "
            f"they are {_shapes(rest)}. Give the head that they are of by --head."
        )

    def _fill(self, model: MultiTaskModel, rest: State, source: str) -> None:
        wanted = dict(_head(model, self.task).state_dict())
        before = prefix_of(rest, wanted, source) or ""
        place = f"heads.{self.task}."
        given = {place + name.removeprefix(before): value for name, value in rest.items() if name.startswith(before)}
        others = [name for name in rest if not name.startswith(before)]
        report = match_report(given, {place + name: value for name, value in wanted.items()})
        say(f"{source}: {before or 'the rest'}{'*' if before else ''} into the head of {self.task}\n{report}")
        if report.missing or report.wrong_shape:
            raise ValueError(
                f"{source} does not fill the head {dict(self.head)}; nothing was written.\n{report}\nBeside the "
                f"backbone the file holds {_shapes(rest)}. Give the head that it is of by --head; {RENAME}."
            )
        others += [before + name.removeprefix(place) for name in report.unexpected]
        if others:
            first = others[0].split(".")[0]
            raise ValueError(
                f"{source}: tensors {listing(others)} belong neither to the backbone {model.backbone.name} nor to the "
                f"head; nothing was written. Leave out what the network does not need by --drop PATTERN, for example "
                f"--drop '{first}.*'; {RENAME}."
            )
        given = {name: rest[before + name] for name in wanted if before + name in rest}
        _head(model, self.task).load_state_dict(given, strict=False)


def renamed(state: State, rename: Mapping[str, str], drop: Sequence[str], source: str) -> tuple[State, list[str]]:
    """Tensors of a file as an import takes them.

    Args:
        state: tensors by name.
        rename: {start of names in the file: what it becomes}; the longest start that fits counts.
        drop: patterns ('aux.*') of names in the file that are left out.
        source: the file, for messages.

    Returns:
        The tensors by their new names, and the names that are left out.

    Raises:
        ValueError: a pattern or a start fits no name, or two tensors get one name.
    """
    for pattern in drop:
        if not any(fnmatchcase(name, pattern) for name in state):
            raise ValueError(f"--drop {pattern!r} fits no name in {source}, which holds {listing(state)}.")
    for old in rename:
        if not any(name.startswith(old) for name in state):
            raise ValueError(f"--rename {old}=...: no name in {source} starts so; it holds {listing(state)}.")
    dropped = [name for name in state if any(fnmatchcase(name, pattern) for pattern in drop)]
    kept: State = {}
    for name in (name for name in state if name not in dropped):
        old = max((start for start in rename if name.startswith(start)), key=len, default="")
        new = rename.get(old, "") + name.removeprefix(old)
        if new in kept:
            raise ValueError(f"--rename gives two tensors of {source} the name {new!r}; choose other names.")
        kept[new] = state[name]
    return kept, dropped


def _split(backbone: TimmBackbone, state: State, source: str) -> tuple[State, State]:
    """(the backbone's tensors by timm's names, the others)"""
    wanted = backbone.body.state_dict()
    known = known_names(backbone.name, backbone.timm_args, wanted)
    before = prefix_of(state, known, source)
    found = (
        0 if before is None else sum(name.removeprefix(before) in known for name in state if name.startswith(before))
    )
    if before is None or found < len(wanted) / 2:
        raise ValueError(
            f"{source} has no tensor of the backbone {backbone.name}, or few ({found}): it holds {listing(state)}, and "
            f"timm's names are {listing(known)}. Give its network by --backbone; {RENAME}."
        )
    inside = {name for name in state if name.startswith(before) and (before or name in known)}
    body = {name.removeprefix(before): value for name, value in state.items() if name in inside}
    return body, {name: value for name, value in state.items() if name not in inside}


def _head(model: MultiTaskModel, task: str) -> nn.Module:
    """The head's own module, which knows its tensors by their own names."""
    head = model.heads[task]
    return head.module if isinstance(head, ModuleHead) else head


def _colours(name: str, options: NetworkOptions) -> tuple[Sequence[float], Sequence[float]]:
    """(mean, std) on the 0..255 scale: as given, else those of timm's pretrained weights."""
    if options.mean is not None and options.std is not None:
        return options.mean, options.std
    config = timm.get_pretrained_cfg(name)
    unit = (config.mean, config.std) if config else ((0.0,) * 3, (1.0,) * 3)
    mean, std = (
        given or [round(255 * value, 6) for value in part]
        for given, part in ((options.mean, unit[0]), (options.std, unit[1]))
    )
    as_timm = "as timm's weights are" if config else f"so not at all: timm says nothing of {name}"
    told = [
        f"{what} {', '.join(f'{value:.4g}' for value in values)} ({'as given' if given else as_timm})"
        for what, values, given in (("mean", mean, options.mean), ("std", std, options.std))
    ]
    say(
        f"images are normalised by {' and '.join(told)}, on 0..255; where your training used others, give --mean and "
        "--std"
    )
    return mean, std


def _shapes(state: Mapping[str, Tensor]) -> str:
    return listing(f"{name} {tuple(value.shape)}" for name, value in state.items())
