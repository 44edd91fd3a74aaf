"""What is written: a safetensors file, or shards of it and their index, whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from symerge_dense.fileio import atomic_write, nearest_existing, writing
from symerge_dense.merging.safetensors_writer import TensorFile, nbytes, write_all
from symerge_dense.merging.sources import TensorLayout
from symerge_dense.models.mapped_files import INDEX
from symerge_dense.pipeline.file_merge.plan import MIB

UNITS = "KB", "MB", "GB", "TB"  # powers of 1000
SIZE = re.compile(rf"(?P<number>[0-9]+|[0-9]*\.?[0-9]+(?=\s*[A-Z]))\s*(?P<unit>{'|'.join(UNITS)})?", re.IGNORECASE)
MOST = 256  # shards, all of which are open at a time


def check_out(path: str, inputs: Iterable[str], overwrite: bool, shard_size: int | str | None = None) -> None:
    """Check the path of the file to write.

    Args:
        path: of the file.
        inputs: paths of the checkpoints to read.
        overwrite: whether the file may exist.
        shard_size: whether there may be several.

    Raises:
        ValueError: the path does not end in .safetensors, is a folder, belongs to an input, or exists, or is there in
            shards; or shards are to be replaced, which could not be done at once.
    """
    out = Path(path)
    if overwrite and shard_size is not None:
        raise ValueError("--overwrite replaces one file at once, and no shards: remove the old ones, or leave it out.")
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out} must end in .safetensors, the only format that can be written in a stream.")
    for given in map(Path, inputs):
        folder = given if given.is_dir() else given.parent if given.name.endswith(INDEX) else None
        target, source = os.path.realpath(out), os.path.realpath(given)  # resolve() fails for a link to itself
        if target == source or (folder is not None and os.path.dirname(target) == os.path.realpath(folder)):
            raise ValueError(f"--out {out} is one of the inputs, or in the folder of one; choose another name.")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it.")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name, or pass --overwrite.")
    if (index := out.with_name(f"{out.name}{INDEX}")).exists():
        raise ValueError(
            f"{index} exists, and its folder could not be read with {out.name} beside the shards; choose another name, "
            "or remove the index and its shards."
        )


class Output:
    """The files to write. ``size`` is theirs in bytes, known before anything is written.

    Shards and index are named, and tensors spread over them, as Hugging Face libraries do, which can read them:
    ``out-00001-of-00003.safetensors``, ..., ``out.safetensors.index.json``. The index comes last.

    Args:
        out: the file, which ends in .safetensors.
        layouts: shape and data type of every tensor, by name.
        metadata: text entries of the header of every file.
        shard_size: greatest size of a shard, in bytes or as '2GB'; a larger tensor has a shard of its own. None, or
            tensors that fit into one, give one file.

    Raises:
        ValueError: the size cannot be read or gives too many shards, shards exist, or there is not enough space.
    """

    def __init__(
        self,
        out: str | Path,
        layouts: Mapping[str, TensorLayout],
        metadata: Mapping[str, str],
        shard_size: int | str | None = None,
    ) -> None:
        out = Path(out)
        self.shards = {out.name: list(layouts)} if shard_size is None else _split(out, layouts, shard_size)
        self._files = {
            name: TensorFile(out.with_name(name), {tensor: layouts[tensor] for tensor in tensors}, metadata)
            for name, tensors in self.shards.items()
        }
        self._owner = {tensor: file for name, file in self._files.items() for tensor in self.shards[name]}
        self.path = out if len(self.shards) == 1 else out.with_name(f"{out.name}{INDEX}")
        self.size = sum(file.size for file in self._files.values())
        folder = nearest_existing(out.absolute().parent)
        free = shutil.disk_usage(folder).free
        if free < self.size:
            raise ValueError(
                f"{out} takes {self.size / MIB:.1f} MiB, and {folder} has {free / MIB:.1f} MiB free; "
                "make room or choose another place."
            )

    @contextmanager
    def open(self) -> Iterator[None]:
        """Write within the block; an error, in it or of the last file, leaves nothing behind."""
        try:
            with self._opened():
                yield
        except BaseException:
            if len(self.shards) > 1:  # none of them was there before
                for name in self.shards:
                    self.path.with_name(name).unlink(missing_ok=True)
            raise

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """All is on the disk before the first file gets its name: shards whose index is missing are of no use."""
        with ExitStack() as stack:
            index = stack.enter_context(atomic_write(self.path, sync=False)) if len(self.shards) > 1 else None
            for file in self._files.values():
                file.path = stack.enter_context(atomic_write(file.path, sync=False))  # it syncs itself
            for file in self._files.values():
                stack.enter_context(file)
            yield
            if index is not None:
                names = {tensor: name for name, tensors in self.shards.items() for tensor in tensors}
                total = sum(nbytes(layout) for file in self._files.values() for layout in file.layouts.values())
                content = {"metadata": {"total_size": total}, "weight_map": names}
                with writing(self.path, index), index.open("w", encoding="utf-8") as text:
                    text.write(json.dumps(content, indent=2, sort_keys=True))
                    text.flush()
                    os.fsync(text.fileno())

    def write_all(self, stream: Iterable[tuple[str, Tensor]]) -> None:
        """Write all tensors, each once, in any order.

        Args:
            stream: (name, tensor) of the announced layouts.
        """
        write_all(lambda name, tensor: self._owner[name].write(name, tensor), stream)

    def replace_metadata(self, metadata: Mapping[str, str]) -> None:
        """Write other metadata of the same length, for facts known only at the end.

        Args:
            metadata: text entries of the headers.
        """
        for file in self._files.values():
            file.replace_metadata(metadata)


def _split(out: Path, layouts: Mapping[str, TensorLayout], shard_size: int | str) -> dict[str, list[str]]:
    """{name of a shard: its tensors}."""
    found = split_state_dict_into_shards_factory(
        dict[str, Any](layouts),  # a layout is all that it looks at
        get_storage_size=nbytes,
        filename_pattern=f"{out.stem.replace('{', '{{').replace('}', '}}')}{{suffix}}.safetensors",
        max_shard_size=_bytes(shard_size),
    ).filename_to_tensors
    if len(found) > MOST:
        raise ValueError(f"--shard-size {shard_size} gives {len(found)} shards; choose one that gives {MOST} at most.")
    old = [*out.parent.glob(f"{glob.escape(out.stem)}-*-of-*.safetensors"), out.with_name(f"{out.name}{INDEX}")]
    if present := [path.name for path in old if path.exists()]:
        raise ValueError(f"{out.parent} has {present[0]} already; remove the shards, or choose another name.")
    return dict(found)


def _bytes(shard_size: int | str) -> int:
    found = SIZE.fullmatch(str(shard_size).strip())
    size = 0
    if found is not None:
        unit = (found["unit"] or "").upper()
        size = int(float(found["number"]) * 1000 ** (1 + UNITS.index(unit))) if unit else int(found["number"])
    if size < 1:
        raise ValueError(
            f"--shard-size {shard_size}: must be at least 1 byte; give a number of bytes, or of {', '.join(UNITS)}, "
            "for example 500MB or 2GB."
        )
    return size
