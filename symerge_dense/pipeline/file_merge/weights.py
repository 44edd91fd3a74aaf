"""``merge``: what ``symerge merge`` does, from Python, on files, state dicts and networks alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from symerge_dense.merging.base import Merger
from symerge_dense.models.network_entries import WRAPPERS, common_prefix
from symerge_dense.pipeline.file_merge.inputs import Weights
from symerge_dense.pipeline.file_merge.merge import FileMerge
from symerge_dense.pipeline.method_options import built
from symerge_dense.registry import MERGERS


def merge(
    method: str | Merger,
    base: Weights,
    experts: Mapping[str, Weights] | Sequence[Weights],
    *,
    out: str | Path | None = None,
    heads: bool = False,
    statistics: str = "mean",
    prefix: str | None = None,
    key: str | Mapping[str, str] | None = None,
    ema: bool = False,
    seed: int = 0,
    task: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
    shard_size: int | str | None = None,
    **options: Any,
) -> dict[str, Tensor] | nn.Module | None:
    """Merge networks of one architecture by a static method, as the command ``symerge merge`` does.

    Base and experts may be checkpoints (read as ``symerge merge`` reads them), state dicts and networks, mixed. None of
    them is changed. Weights go through the method, counters are the base's, and the running statistics of BatchNorm
    follow ``statistics``, as on the command line: no image is seen here, so re-estimate them on your own
    (``symerge_dense.models.recalibrate``) where accuracy matters.

    Args:
        method: name of a static method ('ties'), or a ``Merger``.
        base: what the experts were fine-tuned from: a path, a state dict, or an ``nn.Module``.
        experts: {name: the same}, or a list of them.
        out: a ``.safetensors`` file to write, tensor by tensor, however large the checkpoints are; then nothing is
            returned.
        heads: give one whole model of this package: the merged backbone and the heads of all experts, which are its
            model files or ``MultiTaskModel``s.
        statistics: running statistics of BatchNorm: 'mean' of the experts, pooled 'moments', or the base's,
            'pretrained'.
        prefix: merge the tensors whose names start so; None takes all, or the backbone of this package's models.
        key: of the network in checkpoints of several, or {'base' or expert: key}.
        ema: take averaged (EMA) weights, where a file has them.
        seed: of random methods.
        task: whose weights to give, of a method that gives every task its own.
        device: where to compute, for example 'cuda'; results are where the base is.
        overwrite: whether ``out`` may exist.
        shard_size: greatest size of a file, in bytes or as '2GB': ``out`` becomes shards and their index, which this
            package and Hugging Face's libraries read. None writes one file.
        **options: of the method, as on the command line: ``density=0.2``.

    Returns:
        A state dict with the names of the base and memory of its own. Where the base is a network: a copy of it with
        the merged weights, in the same mode. With ``heads``: a ``MultiTaskModel``. None with ``out``.

    Raises:
        ValueError: an unknown method or option, a value out of range, inputs that do not fit together or are no whole
            networks, or a method that needs images.

    >>> import torch
    >>> base = {"weight": torch.zeros(1, 4)}
    >>> depth, normals = ({"weight": torch.tensor([row])} for row in ([4.0, 0, 0, 1], [2.0, 0, 6, 0]))
    >>> merge("task_arithmetic", base, {"depth": depth, "normals": normals}, scale=0.5)
    {'weight': tensor([[3.0000, 0.0000, 3.0000, 0.5000]])}
    >>> merge("average", torch.nn.Linear(2, 1), [torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)])
    Linear(in_features=2, out_features=1, bias=True)
    """
    job = FileMerge(
        merger=_merger(method, options),
        base=base,
        experts=_named(experts),
        out=None if out is None else str(out),
        statistics=statistics,
        prefix=prefix,
        keys={"": key} if isinstance(key, str) else dict(key or {}),
        ema=ema,
        seed=seed,
        task=task,
        device=device,
        overwrite=overwrite,
        shard_size=shard_size,
        heads=heads,
    )
    if out is not None:
        job.merge()
        return None
    if heads:
        return job.model()[1]
    inputs, state = job.state()
    if not isinstance(base, nn.Module):
        return {f"{inputs.prefix}{name}": value for name, value in state.items()}
    return _filled(base, state, inputs.prefix)


def _merger(method: str | Merger, options: Mapping[str, Any]) -> Merger:
    if isinstance(method, str):
        merger: Merger = built(MERGERS[method], method, options)
        return merger
    if options:
        raise ValueError(f"{method.name} is built already; give it {', '.join(options)} where it is built.")
    return method


def _named(experts: Mapping[str, Weights] | Sequence[Weights]) -> dict[str, Weights]:
    """Experts by name; a list is numbered so that sorting keeps its order."""
    if isinstance(experts, Mapping):
        if any(isinstance(value, Tensor) for value in experts.values()):
            raise ValueError("experts is a state dict itself; give {name: state dict}, or a list of state dicts.")
        return dict(experts)
    if isinstance(experts, (str, Path, nn.Module)):
        raise ValueError(f"experts is one {type(experts).__name__}; give a list of experts, or {{name: expert}}.")
    width = len(str(len(experts)))
    return {f"expert{number:0{width}}": expert for number, expert in enumerate(experts, 1)}


def _filled(base: nn.Module, state: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """A copy of a network with other weights; what was not merged stays the base's."""
    network = copy.deepcopy(base)
    own = set(network.state_dict())
    wrapper = common_prefix(own, WRAPPERS)
    before = next((start for start in (wrapper + prefix, wrapper) if own >= {start + name for name in state}), None)
    if before is None:
        raise ValueError(f"the merged tensors do not fit {type(base).__name__}; give its state_dict() as the base.")
    network.load_state_dict({before + name: value for name, value in state.items()}, strict=False)
    return network
