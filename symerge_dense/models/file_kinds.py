"""What a file is by its content, whatever its name says; what is no checkpoint is named for what it is."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Literal

HEAD = 1 << 12  # bytes that tell what a file is
# What Python says of a damaged list of contents.
DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error)
AGAIN = "Where the network can be built, torch.save(model.state_dict(), PATH) writes what is read here."
ARCHIVE = "unpack it, and give the checkpoint in it."

# first bytes -> (what the file is, the remedy)
SIGNATURES: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": (
        "a pointer of git-lfs, not the file itself",
        "run 'git lfs pull' in its repository, or download the file itself.",
    ),
    b"/annex/objects/": ("a pointer of git-annex, not the file itself", "run 'git annex get' in its repository."),
    b"\x89HDF\r\n\x1a\n": (
        "an HDF5 file, as Keras and h5py write them",
        f"read the weights by the program that wrote them, and give them PyTorch's names. {AGAIN}",
    ),
    b"\x93NUMPY": ("a NumPy array", f"a checkpoint has tensors by name. {AGAIN}"),
    b"GGUF": ("a GGUF file of quantised weights", "give the checkpoint that it was made from."),
    b"\x1f\x8b": ("a gzip archive", ARCHIVE),
    b"BZh": ("a bzip2 archive", ARCHIVE),
    b"\xfd7zXZ": ("an xz archive", ARCHIVE),
    b"\x28\xb5\x2f\xfd": ("a zstandard archive", ARCHIVE),
    b"7z\xbc\xaf": ("a 7-Zip archive", ARCHIVE),
    b"Rar!": ("a RAR archive", ARCHIVE),
    b"\x89PNG": ("a PNG image", "give a checkpoint."),
    b"\xff\xd8\xff": ("a JPEG image", "give a checkpoint."),
    b"%PDF": ("a PDF document", "give a checkpoint."),
}
PAGE = (
    "a web page, probably saved in place of a download that failed",
    "download it again, by the address of the file itself, not of the page that shows it.",
)
GRAPH = (
    "an ONNX graph, which has no training weights by name",
    "give the checkpoint that it was exported from.",
)
SCRIPT = (
    "a TorchScript archive (torch.jit.save), which is code",
    "if you trust it, torch.save(torch.jit.load(PATH).state_dict(), NEW) writes its weights alone.",
)
EXPORTED = (
    "an archive of torch.export, which is a program",
    "torch.save(torch.export.load(PATH).state_dict, NEW) writes its weights alone.",
)


class NoCheckpointError(ValueError):
    """The file is something else than a checkpoint."""


def container_of(path: Path) -> Literal["safetensors", "torch"]:
    """How a checkpoint is stored: by its content, and by its suffix only where that says nothing.

    Args:
        path: the file, which exists.

    Raises:
        NoCheckpointError: it is something else, such as a web page; the message says what, and what to do.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    found = _zip(path) if head.startswith(b"PK") else _other(path, head)
    if found is not None:
        raise NoCheckpointError(f"{path} is {found[0]}: {found[1]}")
    return "torch" if head.startswith(b"PK") or path.suffix != ".safetensors" else "safetensors"


def _zip(path: Path) -> tuple[str, str] | None:
    """What a zip file is; None for one of ``torch.save``, and for a damaged one, whose reader says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED_ZIP:
        return None
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in ends:
        return SCRIPT
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return EXPORTED
    if "data.pkl" in ends:
        return None
    if ends and all(name.endswith(".npy") for name in ends):
        return "an archive of NumPy arrays", f"PyTorch's tensors by name are read here. {AGAIN}"
    return f"a zip archive of {', '.join(names[:5]) or 'nothing'}", ARCHIVE


def _other(path: Path, head: bytes) -> tuple[str, str] | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return PAGE
    if text.startswith(b"{") or text.startswith(b"[{"):
        return "JSON text, not weights", "give the checkpoint beside it, or the folder of its shards."
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and any(word in head[:300] for word in (b"onnx", b"pytorch"))):
        return GRAPH
    if head[257:262] == b"ustar":
        return "a tar archive", ARCHIVE
    return next((found for start, found in SIGNATURES.items() if head.startswith(start)), None)
