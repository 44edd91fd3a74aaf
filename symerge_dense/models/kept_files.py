"""Model files that a program keeps for later ones: a damaged one is named and set aside, and then made anew."""

from __future__ import annotations

from pathlib import Path

from symerge_dense.models.checkpoint import refuse_changed
from symerge_dense.models.mapped_files import SafetensorsSource
from symerge_dense.models.weight_files import read_metadata
from symerge_dense.progress import say


def damage_of(path: Path) -> str:
    """What is wrong with a model file; empty where nothing is. All of it is read.

    Args:
        path: of ``save_model``.
    """
    try:
        refuse_changed(path, read_metadata(path), SafetensorsSource(path))
    except (ValueError, OSError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    return ""


def is_kept(path: Path) -> bool:
    """Whether a model file is there and whole. A damaged one is set aside, and a line says so.

    Args:
        path: of ``save_model``; this process may write there.
    """
    if not path.exists():
        return False
    if why := damage_of(path):
        set_aside(path, why)
    return not why


def set_aside(path: Path, why: str) -> None:
    """Rename a file that cannot be used, and say so: the next one is made in its place, and nothing is deleted.

    Args:
        path: the file.
        why: what is wrong with it, for the message.
    """
    aside = path.with_name(f"{path.name}.old")
    path.replace(aside)
    say(f"{why.rstrip('.')}. It is kept as {aside.name}, and made anew.")
