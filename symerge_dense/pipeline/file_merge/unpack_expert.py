"""Whole experts from the file that ``FilePack`` wrote: the record, checked; sources of tensors; and files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from symerge_dense.engine.freed_memory import giving_back
from symerge_dense.fileio import parsed_json
from symerge_dense.merging.packed_experts import Packing
from symerge_dense.merging.restored_expert import RestoredExpert
from symerge_dense.merging.sources import SafetensorsSource, open_source
from symerge_dense.models.mapped_files import checkpoint_files
from symerge_dense.models.weight_files import KEY, CorruptFileError, StateHash, existing, listing
from symerge_dense.pipeline.file_merge.inputs import BASE, Hashes
from symerge_dense.pipeline.file_merge.output import Output
from symerge_dense.pipeline.file_merge.pack import ENTRY, FORMAT
from symerge_dense.pipeline.file_merge.plan import MIB
from symerge_dense.progress import say, track
from symerge_dense.registry import did_you_mean

HOW = ("bits", "shared_bits", "per", BASE, "versions")  # what an unpacked expert says of its packing


def holds_experts(path: str) -> bool:
    """Whether a file says that it holds packed experts.

    Args:
        path: the file.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    return existing(path).suffix == ".safetensors" and ENTRY in _texts(path)


def open_packed(path: str, base: str) -> dict[str, RestoredExpert]:
    """The experts of a file that ``FilePack`` wrote, as sources of tensors that are restored when they are read.

    They are whole, heads included, and go where state dicts go: ``merge('ties', base, open_packed(path, base),
    prefix='backbone.')``.

    Args:
        path: the file.
        base: the checkpoint it was packed on. It may have moved, but its bytes must be the same.

    Raises:
        ValueError: the file is not packed, is damaged or of another format, or ``base`` is another one.
    """
    record = expert_record(path)
    check_base(base, path, record)
    source = SafetensorsSource(path)
    held = {name.split(".")[1] for name in source if name.startswith(("codes.", "kept."))}
    if held != set(record["experts"]):
        raise ValueError(
            f"{path} holds tensors of {listing(sorted(held))}, but its record names "
            f"{listing(sorted(record['experts']))}; copy the file again, or pack again."
        )
    origin = open_source(base, record["prefix"], record.get("base_key"), record.get("ema", False))
    packing = Packing(record["bits"], record["shared_bits"], record["per"])
    prefix = record["expert_prefix"]
    try:
        return {task: RestoredExpert(packing, origin, source, task, prefix) for task in record["experts"]}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_expert(path: str, base: str, task: str, out: str, shard_size: int | str | None = None) -> None:
    """Write one expert completely or not at all, with its own names and header.

    The header's hash is that of the weights as they are now; its entry 'unpacked' says how they were packed.

    Args:
        path: what ``FilePack`` wrote.
        base: the checkpoint it was packed on.
        task: the expert.
        out: the file to write.
        shard_size: greatest size of a file, see ``Output``; None writes one. Models of this package are one file.

    Raises:
        ValueError: as ``open_packed`` does, there is no such task, shards are refused, or the weights are not
            those that were packed.
    """
    record = expert_record(path)
    if task not in record["experts"]:
        raise ValueError(did_you_mean(task, record["experts"], f"task of {path}"))
    expert, entry = open_packed(path, base)[task], record["experts"][task]
    how = {key: record[key] for key in HOW if key in record}
    header = {**entry["header"], "unpacked": json.dumps({**how, "task": task})}
    if KEY in header:
        header[KEY] = json.dumps({**json.loads(header[KEY]), "hash": entry["hash"]})
    if shard_size is not None and KEY in header:
        raise ValueError(f"{task} is a model of this package, which is one file; leave out --shard-size.")
    file = Output(out, expert.layouts, header, shard_size)
    digest = StateHash()
    with file.open():
        file.write_all(_hashed(expert, digest, f"unpacking {task}"))
        if digest.hexdigest() != entry["hash"]:
            raise CorruptFileError(
                f"{path}: the weights of {task} are not those that were packed (their hash differs); copy the file "
                "again, or pack again."
            )
    say(f"{file.path}: {task} from {record['bits']} bits per weight, {file.size / MIB:.1f} MiB")


def _hashed(expert: RestoredExpert, digest: StateHash, what: str) -> Iterator[tuple[str, Tensor]]:
    for name in giving_back(track(list(expert), what)):
        tensor = expert[name]
        digest.add(name, tensor)
        yield name, tensor


def check_base(base: str, packed: str, record: dict[str, Any]) -> None:
    """Refuse another base than that of a packed file.

    Args:
        base: a checkpoint.
        packed: the packed file, for the message.
        record: its record.

    Raises:
        ValueError: the bytes are not those that were recorded.
    """
    with Hashes(checkpoint_files(Path(base))[0]) as hashes:
        found = list(hashes.wait().values())
    if found != [file["sha256"] for file in record[BASE]]:
        raise ValueError(
            f"{base} is not the base that {packed} was made on; that was "
            f"{', '.join(file['file'] for file in record[BASE])}."
        )


# -- the record, which is untrusted -----------------------------------------------------------------------------------
def expert_record(path: str) -> dict[str, Any]:
    """The record of packed experts, checked.

    Args:
        path: the file.

    Raises:
        ValueError: there is none, it is damaged, or of another format.
    """
    texts = _texts(path)
    try:
        record = parsed_json(texts[ENTRY])
        version = record["format"]
        whole = type(version) is int and (version != FORMAT or _whole(record))
    except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, or of another structure
        whole = False
    if not whole:
        raise ValueError(f"{path} holds no packed experts, or a damaged record of them; write it by tools/pack.py.")
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, this version reads {FORMAT}; update the package.")
    try:
        Packing(*(record.get(name) for name in ("bits", "shared_bits", "per")))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its record says {error} Copy the file again, or pack again.") from error
    return dict(record)


def _whole(record: dict[str, Any]) -> bool:
    entries = list(record["experts"].values())
    words = [record["prefix"], record["expert_prefix"], *(entry["hash"] for entry in entries)]
    words += [file[key] for file in record[BASE] for key in ("file", "sha256")]
    words += [word for entry in entries for word in entry["header"].values()]
    return (
        min(len(entries), len(record[BASE])) > 0
        and all(isinstance(word, str) for word in words)
        and all(isinstance(parsed_json(entry["header"].get(KEY, "{}")), dict) for entry in entries)
        and isinstance(record.get("base_key", ""), str)
        and isinstance(record.get("ema", False), bool)
    )


def _texts(path: str) -> dict[str, str]:
    """Metadata of a safetensors file."""
    try:
        with safe_open(existing(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise CorruptFileError(
            f"{path} is no safetensors file, truncated or damaged ({error}); copy the file again, or pack again."
        ) from error
