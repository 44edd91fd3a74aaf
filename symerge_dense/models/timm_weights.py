"""timm's side of the backbone: building networks, and giving checkpoints the tensor names of feature extractors."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from symerge_dense.registry import did_you_mean

# Arguments of timm that load files or change what a backbone is; only load_base may load weights.
RESERVED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "feature_cls",
    "out_indices",
    "scriptable",
    "exportable",
)
LEVELS = 4
# Prefixes of the backbone's tensors in files of whole networks: ours, LibMTL's, OpenMMLab's. Others are found by names.
PREFIXES = ("backbone.body.", "encoder.", "backbone.")
_strides: dict[tuple[str, str], list[int]] = {}  # of all features of the networks that were asked about: it takes long


def create(name: str, timm_args: Mapping[str, Any], **more: Any) -> Any:
    """``timm.create_model`` without pretrained weights.

    Args:
        name: timm model.
        timm_args: its arguments, as the user gave them.
        **more: further arguments, set by this package.

    Raises:
        ValueError: an argument does not fit the network; the message names the network.
    """
    try:
        return timm.create_model(name, pretrained=False, **timm_args, **more)
    except (TypeError, AssertionError, RuntimeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"timm cannot build {name!r} with {dict(timm_args)} {more or ''}: {error}. Leave out or "
            "correct the argument; not every network takes output_stride or img_size."
        ) from error


def check_arguments(name: str, timm_args: Mapping[str, Any]) -> None:
    """Refuse what is no timm model, and arguments that load files or that a record cannot hold.

    Args:
        name: timm model.
        timm_args: its arguments, as the user gave them.

    Raises:
        ValueError: the name or an argument is refused.
    """
    architecture = name.split(".")[0]  # what follows a dot names pretrained weights
    if not timm.is_model(architecture) or ":" in name or "/" in name:
        told = did_you_mean(architecture, timm.list_models(), "timm model")
        raise ValueError(f"{told.split(' Known:')[0]} timm.list_models() lists all.")
    for key in timm_args:
        if key in RESERVED:
            raise ValueError(
                f"backbone argument {key!r} is not allowed here: weights are loaded by load_base "
                "(checkpoint=PATH or pretrained=True), and the features by out_indices."
            )
    try:
        json.dumps(timm_args)
    except TypeError as error:
        raise ValueError(f"backbone arguments {timm_args} must be numbers, texts and lists: {error}.") from error


def default_levels(name: str, timm_args: Mapping[str, Any]) -> list[int]:
    """The features that a backbone gives if not told: the last four levels, or four blocks of a plain transformer.

    Args:
        name: timm model.
        timm_args: its arguments.

    Raises:
        ValueError: an argument does not fit the network.
    """
    asked = name, json.dumps(timm_args)
    if asked not in _strides:
        with torch.device("meta"):
            levels = create(name, timm_args, features_only=True).feature_info.info
        _strides[asked] = [level["reduction"] for level in levels]
    strides = _strides[asked]
    count = min(LEVELS, len(strides))
    if len(set(strides)) == 1:  # a plain transformer: blocks that differ in depth only
        return [(i + 1) * len(strides) // count - 1 for i in range(count)]
    return list(range(len(strides)))[-count:]


def download(name: str, timm_args: Mapping[str, Any]) -> dict[str, Tensor]:
    """Pretrained tensors of a complete network, from timm's hub.

    Args:
        name: timm model.
        timm_args: its arguments.

    Raises:
        ValueError: the download fails.
    """
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **timm_args)
    except Exception as error:  # whatever the hub's client and its network stack raise
        raise ValueError(
            f"the pretrained weights of {name!r} could not be downloaded ({type(error).__name__}: "
            f"{error}). Where there is a network, get them with timm.create_model({name!r}, "
            "pretrained=True), save its state_dict(), bring it here and give checkpoint=PATH."
        ) from error
    return model.state_dict()


def for_features(
    state: Mapping[str, Tensor],
    name: str,
    timm_args: Mapping[str, Any],
    wanted: Mapping[str, Tensor],
    grid: tuple[int, int] | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename a checkpoint's tensors to the names of a feature extractor.

    timm's own filter renames old layouts and resamples position embeddings. It assumes square grids, so a known
    ``grid`` is resampled here instead.

    Args:
        state: the checkpoint's tensors by name.
        name: timm model.
        timm_args: its arguments.
        wanted: the extractor's state.
        grid: (patches high, wide) of the position embedding, where it is known.

    Returns:
        The renamed tensors, and the names of those that were dropped: tensors of the complete network that the
        extractor lacks (classifier, last norm, levels above the last output). Tensors that the network does not know
        keep their names, for the report.

    Raises:
        ValueError: the tensors do not suit the network, or its arguments do not fit.
    """
    with torch.device("meta"):  # names and shapes only
        complete = create(name, timm_args)
    known = {key: _extractor_name(key, wanted) for key in complete.state_dict()}
    if set(state) >= set(wanted):  # an extractor's own state
        original = {target: key for key, target in known.items()}
        state = {original.get(key, key): value for key, value in state.items()}
    state, embedding = dict(state), {}
    if grid is not None and "pos_embed" in state:
        embedding["pos_embed"] = _resampled(state.pop("pos_embed"), grid, complete)
    given, dropped = {}, []
    for key, value in {**_timm_layout(state, complete), **embedding}.items():
        target = _extractor_name(key, wanted)
        if target in wanted or key not in known:
            given[target] = value
        else:
            dropped.append(key)
    return given, dropped


def of_complete(state: Mapping[str, Tensor], name: str, timm_args: Mapping[str, Any]) -> dict[str, Tensor]:
    """A feature extractor's tensors under the names of the complete network: the inverse of ``for_features``.

    Args:
        state: the extractor's tensors by name.
        name: timm model.
        timm_args: its arguments.

    Raises:
        ValueError: the arguments do not fit.
    """
    with torch.device("meta"):  # names alone
        complete = create(name, timm_args)
    original = {_extractor_name(key, state): key for key in complete.state_dict()}
    return {original.get(key, key): value for key, value in state.items()}


def known_names(name: str, timm_args: Mapping[str, Any], wanted: Collection[str]) -> set[str]:
    """Names of the tensors of a network, complete or as a feature extractor.

    Args:
        name: timm model.
        timm_args: its arguments.
        wanted: names of the extractor's tensors.
    """
    with torch.device("meta"):
        return {*create(name, timm_args).state_dict(), *wanted}


def prefix_of(names: Iterable[str], known: Collection[str], source: str) -> str | None:
    """What stands before the names of a network inside a larger one.

    Args:
        names: of the larger network's tensors.
        known: of the network's tensors, alone.
        source: of the larger one, for the message.

    Returns:
        The prefix under which most of the known names are found; None where there are none.

    Raises:
        ValueError: two prefixes have equally many, and each most of the network.

    >>> prefix_of(["net.conv.weight", "net.conv.bias", "head.bias"], ["conv.weight", "conv.bias"], "x.pth")
    'net.'
    """
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        counts.update(name[:start] for start in starts if name[start:] in known)
    best = sorted(counts.items(), key=lambda entry: (-entry[1], len(entry[0])))
    if len(best) > 1 and best[0][1] == best[1][1] and best[0][1] > len(known) / 2:
        raise ValueError(
            f"{source} holds the network twice: {best[0][1]} tensors each under {best[0][0]!r} and {best[1][0]!r}; say "
            "which with --key, leave the other out with --drop, or save the wanted one alone."
        )
    return best[0][0] if best else None


def inside(
    state: dict[str, Tensor], name: str, timm_args: Mapping[str, Any], wanted: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """A backbone's tensors of a whole network's; all, where these are of a backbone alone.

    Args:
        state: the whole network's tensors by name.
        name: timm model.
        timm_args: its arguments.
        wanted: the extractor's state.
        source: where the tensors come from, for the message.

    Raises:
        ValueError: the network holds the backbone twice.
    """
    if set(state) & set(wanted):
        return state
    prefix = prefix_of(state, known_names(name, timm_args, wanted), source)
    if prefix is None:  # perhaps in an old layout, which timm renames
        prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)), "")
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _resampled(embedding: Tensor, grid: tuple[int, int], complete: Any) -> Tensor:
    wanted = complete.patch_embed.grid_size
    return resample_abs_pos_embed(
        embedding, new_size=list(wanted), old_size=list(grid), num_prefix_tokens=embedding.shape[1] - grid[0] * grid[1]
    )


def _timm_layout(state: Mapping[str, Tensor], complete: nn.Module) -> Mapping[str, Tensor]:
    rule = getattr(sys.modules[type(complete).__module__], "checkpoint_filter_fn", None)
    try:
        layout: Mapping[str, Tensor] = state if rule is None else rule(dict(state), complete)
    except (KeyError, RuntimeError, AttributeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"the checkpoint's tensors do not suit {type(complete).__name__} ({error}); give a checkpoint "
            "of this architecture."
        ) from error
    return layout


def _extractor_name(key: str, wanted: Mapping[str, Tensor]) -> str:
    """The extractor's name of a tensor of the complete network.

    timm wraps transformers as 'model' and hooked networks as 'body', and joins the first two parts of a stage's name.
    """
    candidates = (key, f"model.{key}", f"body.{key}", key.replace(".", "_", 1))
    return next((candidate for candidate in candidates if candidate in wanted), key)
