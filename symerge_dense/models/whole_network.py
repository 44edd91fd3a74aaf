"""Whether tensors by name are all the weights of a network, in a form that can be merged and trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symerge_dense.models.training_entries import is_array, words
from symerge_dense.models.weight_files import listing

ADAPTER = re.compile(
    r"(^|[._])(lora_(a|b|up|down|magnitude_vector|embedding_a|embedding_b)|ia3_l|oft_r|hada_w\d)([._]|$)", re.I
)
DIFFERENCE = re.compile(r"(^|[._])(delta|task_?vector|difference)([._]|$)", re.I)
WEIGHTS = ("weight", "bias", "kernel", "qweight", "qzeros", "weight_packed", "packed_weight", "_packed_params")
SCALES = ("scale", "scales", "zero_point", "zero_points", "qzeros", "absmax", "SCB", "quant_state", "weight_scale")
PACKED = ("shared", "mask", "factor", "kept")  # first parts of the names in a packed merge
SCALE_WORDS = {"scale", "scales", "alpha", "absmax", "scb", "s", "zero"}
INDICES = {"index", "indices", "idx", "id", "ids", "position", "positions", "mask", "masks", "tracked", "num", "shape"}
# (endings of two tensors that together make a weight, what that is, how it is folded)
REPARAMETRISED = (
    (("_orig", "_mask"), "pruned", "torch.nn.utils.prune.remove(layer, 'weight')"),
    (("_orig", "_u"), "with spectral norm", "torch.nn.utils.remove_spectral_norm(layer)"),
    (("_g", "_v"), "with weight norm", "torch.nn.utils.remove_weight_norm(layer)"),
)
PARAMETRISED = re.compile(r"(^|\.)parametrizations\.\w+\.original\d*$")


def is_weight(value: Tensor) -> bool:
    """Whether a tensor has the form of a layer's weight: at least two dimensions.

    Args:
        value: the tensor.
    """
    return value.ndim >= 2


def check_whole(state: Mapping[str, Tensor], entries: Mapping[Any, Any], source: str) -> None:
    """Refuse what is not the whole set of weights of one network.

    Args:
        state: tensors by name.
        entries: the dict that they were taken from, with entries that are no tensors.
        source: the file, for messages.

    Raises:
        ValueError: entries that would be lost, sparse or empty tensors, quantised weights, pruned or
            reparametrised ones, an adapter, or the difference of two networks.
    """
    odd = [
        name
        for name, value in state.items()
        if not value.is_quantized and (value.layout != torch.strided or value.is_meta)
    ]
    if odd:
        raise ValueError(f"{source}: {listing(odd)} sparse, or without values (device meta); save dense tensors.")
    if any(name.startswith("mask.") for name in state) and all(name.split(".")[0] in PACKED for name in state):
        raise ValueError(
            f"{source} is a packed merge of several tasks; symerge unpack writes the weights of one: give those."
        )
    _check_adapter(state, source)
    _check_quantised(state, entries, source)
    _check_reparametrised(state, source)
    lost = [str(name) for name, value in entries.items() if _holds_numbers(name, value)]
    if lost:
        raise ValueError(
            f"{source}: {listing(lost)} beside the tensors hold numbers that are no tensors by name; a part of a "
            "network is not read. Save them as tensors in the same state dict, or leave them out."
        )
    negative = [
        name
        for name, value in state.items()
        if name.endswith("running_var") and value.is_floating_point() and bool((value < 0).any())
    ]
    if negative or (state and all(DIFFERENCE.search(name) for name in state)):
        why = f"negative variances, {listing(negative)}" if negative else f"names {listing(state)}"
        raise ValueError(
            f"{source} is the difference of two networks (a task vector or delta), not a network: {why}. Add it to its "
            "base, and give the sum."
        )


def _check_adapter(state: Mapping[str, Tensor], source: str) -> None:
    found = [name for name in state if ADAPTER.search(name)]
    if found:
        rest = len(state) - len(found)
        what = (
            "is an adapter (LoRA), not a network"
            if rest <= len(found)
            else "holds adapters (LoRA) that are not folded in"
        )
        raise ValueError(
            f"{source} {what}: {listing(found)}. Fold it into its base where it was trained, with peft "
            "model.merge_and_unload(), and give the state dict of the result."
        )


def _check_quantised(state: Mapping[str, Tensor], entries: Mapping[Any, Any], source: str) -> None:
    found = [name for name, value in state.items() if _quantised(name, value, state)]
    found += [
        str(name) for name in entries if isinstance(name, str) and name.endswith("_packed_params") and name not in found
    ]
    if found:
        kinds = sorted({str(state[name].dtype).removeprefix("torch.") for name in found if name in state})
        raise ValueError(
            f"{source} holds quantised weights ({', '.join(kinds) or 'packed'}), which cannot be merged or trained: "
            f"{listing(found)}. Give the checkpoint before quantisation, or dequantise it to float first."
        )


def _quantised(name: str, value: Tensor, state: Mapping[str, Tensor]) -> bool:
    path, dot, leaf = name.rpartition(".")
    kind = value.dtype
    if value.is_quantized or (kind.is_floating_point and kind.itemsize == 1):
        return True
    if kind.is_floating_point:
        scales = {f"{name}_scale", f"{name}_scale_inv", f"{path}{dot}scale_{leaf}"}
        return kind.itemsize == 2 and leaf in WEIGHTS and bool(scales & state.keys())
    if kind.is_complex or kind == torch.bool:
        return False
    if leaf in WEIGHTS and value.ndim > 0:
        return True
    named = set(words(leaf))
    if value.ndim >= 2 and not named & INDICES and (kind.itemsize == 1 or _scaled(path, state)):
        return True
    beside = {f"{path}{dot}{scale}" for scale in SCALES} | {
        f"{name}{joint}{scale}" for joint in ("_", ".") for scale in (*SCALES, "scale_inv")
    }
    return value.ndim > 0 and any(other in state for other in beside)


def _scaled(path: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a floating tensor of the same layer is called a scale."""
    return any(
        other.rpartition(".")[0] == path
        and value.is_floating_point()
        and bool(SCALE_WORDS & set(words(other.rpartition(".")[2])))
        for other, value in state.items()
    )


def _check_reparametrised(state: Mapping[str, Tensor], source: str) -> None:
    for (first, second), what, remedy in REPARAMETRISED:
        found = [name for name in state if name.endswith(first) and name.removesuffix(first) + second in state]
        if found:
            raise _unfolded(found, what, remedy, source)
    found = [name for name in state if PARAMETRISED.search(name)]
    if found:
        remedy = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
        raise _unfolded(found, "parametrised (weight norm or another)", remedy, source)


def _unfolded(found: list[str], what: str, remedy: str, source: str) -> ValueError:
    return ValueError(
        f"{source} holds weights in parts, {what}: {listing(found)}. Merging the parts is not merging the weights. "
        f"Fold them where the network can be built, {remedy} for every such layer, and save its state dict."
    )


def _holds_numbers(name: Any, value: Any) -> bool:
    """Whether an entry beside tensors would be lost: a tensor under a number, an array, or a list of tensors."""
    if isinstance(value, Tensor):
        return not isinstance(name, str)
    if isinstance(value, (list, tuple)):
        return any(isinstance(part, Tensor) for part in value)
    return is_array(value)
