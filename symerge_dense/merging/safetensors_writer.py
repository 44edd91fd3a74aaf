"""Safetensors written tensor by tensor, so that a model need not be in memory to be saved.

The format: 8 bytes with the length of the header; a JSON header of names, data types, shapes and places, padded with
spaces; then the bytes of all tensors without gaps.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from symerge_dense.merging.sources import DTYPES, TensorLayout

ALIGNMENT = 8  # bytes, of the first tensor in the file
SYNC = 1 << 27  # bytes after which the file is synced, so that the end has little left to sync
WAITING = 1 << 26  # bytes of computed tensors that may wait to be written
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TensorFile:
    """Context manager that writes a safetensors file: ``write`` every announced tensor once, in any order.

    Wider data types come first in the file, so that all tensors are aligned. ``size`` is that of the whole file in
    bytes, known before anything is written. Leaving the block without an error syncs the file to disk. After an error
    the caller removes the file.

    Args:
        path: the file; overwritten.
        layouts: shape and data type of every tensor, by name.
        metadata: text entries of the header.

    Raises:
        ValueError: safetensors files cannot hold a data type; on leaving the block, a tensor is missing.
    """

    def __init__(self, path: str | Path, layouts: Mapping[str, TensorLayout], metadata: Mapping[str, str]) -> None:
        self.path, self.layouts, self._missing = Path(path), dict(layouts), set(layouts)
        self._places: dict[str, int] = {}
        end = 0
        for name in sorted(layouts, key=lambda name: -layouts[name].dtype.itemsize):
            _check_dtype(name, layouts[name])
            self._places[name], end = end, end + nbytes(layouts[name])
        self._start = len(self._header(metadata))
        self.size = self._start + end
        self._metadata = metadata

    def _header(self, metadata: Mapping[str, str]) -> bytes:
        entries = {name: _entry(self.layouts[name], place) for name, place in self._places.items()}
        text = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        return len(text).to_bytes(8, "little") + text

    def __enter__(self) -> TensorFile:
        self._file, self._unsynced = self.path.open("wb"), 0
        self._file.write(self._header(self._metadata))
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor.

        Args:
            name: an announced name, not yet written.
            tensor: of the announced shape and data type.
        """
        layout = TensorLayout(tuple(tensor.shape), tensor.dtype)
        assert name in self._missing and layout == self.layouts[name], f"{name} {layout} was not announced"
        self._missing.remove(name)
        self._file.seek(self._start + self._places[name])
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._unsynced += self._file.write(numbers.data)
        if self._unsynced >= SYNC:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def replace_metadata(self, metadata: Mapping[str, str]) -> None:
        """Write other metadata of the same length, for facts known only at the end.

        Args:
            metadata: text entries of the header.
        """
        header = self._header(metadata)
        assert len(header) == self._start, "metadata of another length"
        self._file.seek(0)
        self._file.write(header)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                if self._missing:
                    raise ValueError(f"{self.path} lacks {sorted(self._missing)[:10]}; write every tensor.")
                self._sync()


def write_all(write: Callable[[str, Tensor], None], stream: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors while the next are computed; up to ``WAITING`` bytes, or one tensor, wait for the disk.

    Args:
        write: writes one tensor, as ``TensorFile.write`` does.
        stream: (name, tensor).
    """
    waiting: deque[tuple[Future[None], int]] = deque()
    writer = ThreadPoolExecutor(1, "writer")
    try:
        for name, tensor in stream:
            while waiting and sum(size for _, size in waiting) + tensor.nbytes > WAITING:
                waiting.popleft()[0].result()
            waiting.append((writer.submit(write, name, tensor), tensor.nbytes))
        for written, _ in waiting:
            written.result()
    finally:
        writer.shutdown(cancel_futures=True)


def nbytes(layout: TensorLayout) -> int:
    """Bytes of a tensor.

    Args:
        layout: its shape and data type.
    """
    return torch.Size(layout.shape).numel() * layout.dtype.itemsize


def _check_dtype(name: str, layout: TensorLayout) -> None:
    if layout.dtype not in _NAMES:
        raise ValueError(
            f"tensor {name!r} has data type {layout.dtype}, which a safetensors file cannot hold; known: "
            f"{', '.join(str(dtype) for dtype in _NAMES)}."
        )


def _entry(layout: TensorLayout, place: int) -> dict[str, object]:
    end = place + nbytes(layout)
    return {"dtype": _NAMES[layout.dtype], "shape": list(layout.shape), "data_offsets": [place, end]}
