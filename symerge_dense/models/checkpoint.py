"""Model files: safetensors of plain tensors, with a header that describes their network as one JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from symerge_dense.fileio import atomic_write
from symerge_dense.models.foreign_files import read_state
from symerge_dense.models.mapped_files import SafetensorsSource
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.plugins import plugins_of
from symerge_dense.models.weight_files import (
    KEY,
    MODEL_FORMAT,
    CorruptFileError,
    MatchReport,
    UnsafeFileError,
    listing,
    match_report,
    read_metadata,
    refuse_non_finite,
    state_hash,
)

__all__ = [
    "CorruptFileError",
    "MatchReport",
    "UnsafeFileError",
    "check_same_base",
    "load_model",
    "match_report",
    "read_metadata",
    "read_state",
    "save_model",
    "state_hash",
]


def save_model(
    path: str | Path, model: MultiTaskModel, metadata: Mapping[str, Any] | None = None, half: bool = False
) -> None:
    """Write a model file, all of it or nothing.

    The description of the network is added to the record: format, model, tasks, backbone, heads, preprocessing, hash,
    and plugins, the modules of its classes from other packages.

    Args:
        path: the file (``.safetensors``).
        model: the network.
        metadata: the caller's record: 'base_hash', 'training', 'metrics', ...
        half: write matrices and convolutions in float16, which ``load_model`` reads as float32. Vectors (biases,
            norms and their statistics) stay as they are.

    Raises:
        ValueError: another suffix, metadata that JSON cannot hold, weights that are not finite, or tasks or heads that
            are not registered, which no program could build again.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"model files end in .safetensors, not {path.suffix!r}: {path}.")
    state = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    refuse_non_finite(state, f"the model for {path}")
    state = halved(state) if half else state
    text = _record(model, state_hash(state), metadata or {})
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={KEY: text})


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with its matrices and convolutions in float16.

    Args:
        state: tensors by name; those of less than two dimensions are left as they are.

    Raises:
        ValueError: float16 cannot hold a value.
    """
    small = {
        name: value.half() if value.ndim > 1 and value.is_floating_point() else value for name, value in state.items()
    }
    lost = [name for name, value in small.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if lost:
        raise ValueError(f"float16 cannot hold {listing(lost)} (above 65504); write them without fp16.")
    return small


def _record(model: MultiTaskModel, digest: str, metadata: Mapping[str, Any]) -> str:
    spec = model.spec
    about = {key: spec[key] for key in ("backbone", "heads", "preprocessing")}
    plugins = plugins_of(spec)
    about |= {"plugins": plugins} if plugins else {}
    given = {key: value for key, value in {**model.record, **metadata}.items() if key != "plugins"}
    try:
        return json.dumps(
            {
                "base_hash": None,
                "training": {},
                "metrics": {},
                **given,
                "format": MODEL_FORMAT,
                "model": spec,
                "tasks": list(spec["tasks"]),
                **about,
                "hash": digest,
            }
        )
    except TypeError as error:
        raise ValueError(f"metadata {sorted(metadata)} must be plain JSON values: {error}.") from error


def load_model(path: str | Path, mapped: bool = False) -> tuple[MultiTaskModel, dict[str, Any]]:
    """Read a model file.

    The file must match the network that it describes completely. Tasks and heads are looked up by registered name, and
    nothing is imported: where the file needs a plug-in, the error names the module to import.

    Args:
        path: the file.
        mapped: leave the weights in the file, which is read as they are used, and must not be written into while the
            model lives. Changes of the model stay in memory.

    Returns:
        The model, on the CPU and in evaluation mode, and its metadata, which is also its ``record``.

    Raises:
        ValueError: ``read_metadata`` refuses the file; tensors are missing, left over, of another shape, not finite or
            changed since they were saved; or this version does not know the network. The message names the file and
            the remedy.
    """
    metadata = read_metadata(path)
    state = dict(SafetensorsSource(path))  # what is whole or foreign is no question here: the record says it
    try:
        model = MultiTaskModel.from_spec(metadata["model"], metadata.get("plugins"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes a network that cannot be built: {error}") from error
    own = model.state_dict()
    report = match_report(state, own)
    if not report.full or len(report.matched) < len(own):
        raise ValueError(f"{path} does not match the network that it describes; train or export it again.\n{report}")
    refuse_changed(path, metadata, state)
    refuse_non_finite(state, str(path))
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in state.items()}, assign=mapped)
    model.record = metadata
    return model.eval(), metadata


def refuse_changed(path: str | Path, metadata: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuse a model file whose weights are not those that were saved.

    Args:
        path: the file, for the message.
        metadata: its record.
        state: its tensors by name.

    Raises:
        CorruptFileError: their hash differs.
    """
    if metadata.get("hash") != state_hash(state):
        raise CorruptFileError(
            f"{path}: the weights are not those that were saved (their hash differs); copy it again."
        )


def check_same_base(
    metadatas: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]], allow: bool = False
) -> None:
    """Refuse experts that did not start from the same base weights.

    A missing base hash counts as different: without their common base, task vectors have no meaning.

    Args:
        metadatas: of the experts, as ``load_model`` returns them: {name for messages: metadata}, or a list.
        allow: accept all of them.

    Raises:
        ValueError: the base hashes differ or one is missing, and ``allow`` is False.
    """
    if not isinstance(metadatas, Mapping):
        metadatas = {"+".join(entry.get("tasks", [])) or str(row): entry for row, entry in enumerate(metadatas)}
    hashes = {name: entry.get("base_hash") for name, entry in metadatas.items()}
    if not allow and (len(set(hashes.values())) > 1 or None in hashes.values()):
        told = {name: value[:12] if value else "unknown, saved without base_hash" for name, value in hashes.items()}
        found = ", ".join(f"{name}: {text}" for name, text in told.items())
        raise ValueError(
            f"the experts do not share their base weights ({found}); merging needs that. Train them from "
            "one base, or allow other bases explicitly if you know that they agree."
        )
