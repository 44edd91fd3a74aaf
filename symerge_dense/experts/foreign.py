"""Reading checkpoints that other programs wrote: their weights, and plain values about them, but none of their code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.serialization import safe_globals

from symerge_dense.experts.inert import HARMLESS
from symerge_dense.experts.state import UnsafeFileError, read_plain, read_state, refuse_non_finite
from symerge_dense.experts.state import _tensors as tensors_by_name

# What PyTorch's restricted reader says about a name off the list, and about calling what the file itself made.
REFUSED = r"GLOBAL (\S+) (?:was not|whose module)|unrecognized function|Can only (?:create new object|build)"


@dataclass(frozen=True)
class Foreign:
    """A checkpoint: its tensors by name, and the ``meta`` entry that OpenMMLab's files have beside them.

    ``nested``: the tensors stood under a key such as 'state_dict', with other entries around them.
    """

    path: Path
    state: dict[str, Tensor]
    meta: Mapping[str, Any]
    nested: bool


def read_foreign(path: str | Path) -> Foreign:
    """Read a ``torch.save`` or ``.safetensors`` file; harmless objects in it become inert stand-ins.

    A 'module.' in front of all names is removed. Raises UnsafeFileError, naming the object and the remedy, for any
    other pickled object, and ValueError as ``read_state`` does.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return Foreign(path, read_state(path), {}, nested=False)
    content = _read(path)
    state = tensors_by_name(content, path)
    refuse_non_finite(state, str(path))
    meta = content.get("meta")
    nested = not any(isinstance(value, Tensor) for value in content.values())
    return Foreign(path, state, meta if isinstance(meta, Mapping) else {}, nested)


def _read(path: Path) -> Any:
    try:
        with safe_globals(HARMLESS):
            return read_plain(path)
    except ValueError as error:
        if (found := re.search(REFUSED, str(error.__cause__))) is None:
            raise
        raise UnsafeFileError(
            f"{path} holds the pickled object {found[1] or 'of a call'} and is not read: it could run code. Where the "
            "file was written, keep its weights alone, torch.save(checkpoint['state_dict'], PATH) or "
            "torch.save(model.state_dict(), PATH), and import that file.") from error
