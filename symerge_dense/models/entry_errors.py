"""What is said where the entries of a checkpoint are not the weights of one network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from symerge_dense.models.training_entries import is_optimizer
from symerge_dense.models.weight_files import listing

TOP = "."  # the key that stands for the top level of a file


def part_beside(parts: list[str], chosen: str, source: str) -> ValueError:
    """Weights stand beside the network that would be read.

    Args:
        parts: what they are, such as "'norm' (2: weight, bias)".
        chosen: key of the network.
        source: the file.
    """
    return ValueError(
        f"{source}: beside the network under {chosen!r} there are weights that may be parts of it: "
        f"{'; '.join(parts)}. Save the whole network's state dict, torch.save(model.state_dict(), PATH); "
        f"or, if {chosen!r} is all of it, say so with --key {chosen} (in Python key={chosen!r})."
    )


def several(found: Mapping[str, Collection[str]], source: str) -> ValueError:
    """There are several networks, and none is named.

    Args:
        found: names of tensors by the key of the network.
        source: the file.
    """
    most = max(found, key=lambda name: len(found[name]))
    told = "; ".join(f"{name!r} with {listing(names)}" for name, names in found.items())
    return ValueError(
        f"{source} holds {len(found)} networks: {told}. Say which is meant with --key, for example --key "
        f"{most} (in Python key={most!r}; {TOP!r} stands for the top level). If they are parts of one network, save "
        "its whole state dict instead."
    )


def nothing(content: Any, source: str) -> ValueError:
    """There is no network.

    Args:
        content: what the file holds.
        source: the file.
    """
    if isinstance(content, Mapping):
        found = ", ".join(f"{name} ({_kind(value)})" for name, value in list(content.items())[:20]) or "nothing"
    else:
        found = _kind(content)
    return ValueError(
        f"{source} holds no tensors by name (found: {found[:400]}), so it has no network. Save the network's weights: "
        "torch.save(model.state_dict(), PATH)."
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}" if value.ndim else "one number"
    if isinstance(value, Mapping):
        return "optimizer state" if is_optimizer(value) else f"dict of {len(value)}"
    return type(value).__name__
