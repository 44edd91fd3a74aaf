"""The file that a merge writes: may it be written, and is there space for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from symerge_dense.merging.writer import TensorFile

MIB = 1 << 20


def check_out(path: str, inputs: Iterable[str], overwrite: bool) -> None:
    """Raise ValueError where ``path`` is no name of a safetensors file, belongs to an input, or exists."""
    out = Path(path)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out} must end in .safetensors, the only format that can be written in a stream.")
    for given in map(Path, inputs):
        if out.resolve() == given.resolve() or (given.is_dir() and out.resolve().parent == given.resolve()):
            raise ValueError(f"--out {out} is one of the inputs, or in the folder of one; choose another name.")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it.")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name, or pass --overwrite.")


def check_space(file: TensorFile, path: str) -> TensorFile:
    """``file``, for which there is space in the folder of ``path``, or ValueError."""
    folder = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < file.size:
        raise ValueError(f"{path} takes {file.size / MIB:.1f} MiB, and {folder} has {free / MIB:.1f} MiB free; "
                         "make room or choose another place.")
    return file
