"""The files of an expert store, as the processes of a run find them: there, damaged, or still to be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from safetensors.torch import save_file

from symerge_dense.fileio import atomic_write
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.kept_files import damage_of, is_kept
from symerge_dense.models.mapped_files import SafetensorsSource
from symerge_dense.models.weight_files import state_hash
from symerge_dense.progress import say

HOW = "Train it (leave out --no-train-experts), or name a file in the config"


def is_usable(path: Path, allowed: bool) -> bool:
    """Whether a model file is there and whole, the same in all processes. A damaged one is set aside, to be made anew.

    Args:
        path: the file.
        allowed: whether it may be made anew.

    Raises:
        ValueError: it is damaged, and may not.
    """
    told: list[Any] = [None]
    if is_main_process():
        told = [is_kept(path) if allowed or not path.exists() else damage_of(path) or True]
    broadcast_object_list(told)
    if isinstance(told[0], str):
        raise ValueError(f"{told[0].rstrip('.')}. {HOW}.")
    return bool(told[0])


def base_file(folder: Path, base: TimmBackbone) -> Path:
    """The file of a base that has none of its own: timm's download, random weights. It is written where it is missing.

    Args:
        folder: of the experts.
        base: the backbone.
    """
    state = base.state_dict()
    digest = state_hash(state)
    path = folder / f"base-{digest[:8]}.safetensors"
    if is_main_process() and not _holds(path, digest):
        with atomic_write(path) as temporary:
            save_file({f"backbone.{name}": value.cpu().contiguous() for name, value in state.items()}, temporary)
    barrier()
    return path


def _holds(path: Path, digest: str) -> bool:
    """Whether a file has the backbone of this hash; a damaged one is named."""
    if not path.exists():
        return False
    try:
        whole = state_hash(SafetensorsSource(path, prefix="backbone.")) == digest
    except (ValueError, OSError):
        whole = False
    if not whole:
        say(f"{path} is damaged, and written anew.")
    return whole
