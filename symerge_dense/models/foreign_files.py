"""Reading checkpoints that other programs wrote: their weights, and plain values about them, but none of their code.

Nothing of another package is imported or run. Every name on the list of harmless ones becomes an empty stand-in, which
ignores what the file says about it. A name that is not on the list makes the reader refuse the file.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.serialization import safe_globals

from symerge_dense.models.weight_files import UnsafeFileError, read_plain, read_state, refuse_non_finite
from symerge_dense.models.weight_files import _tensors as tensors_by_name


# -- inert stand-ins for what checkpoints pickle beside their weights -------------------------------------------------
class Inert:
    """Stands for a foreign object or function: takes any arguments and any state, and keeps neither."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """A stand-in, whatever the original would have been made from."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _list(*_: Any) -> list[Any]:
    return []


# The reader fills exact dicts and lists only, so what derives from them becomes one of these.
_DICTIONARIES = (
    "addict.addict.Dict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_NUMPY = tuple(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar"))
_DTYPES = tuple(
    f"numpy.dtypes.{kind}DType"
    for kind in (
        "Bool",
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float16",
        "Float32",
        "Float64",
        "Str",
    )
)
_NUMBERS = tuple(f"numpy.{kind}" for kind in ("float64", "float32", "int64", "int32", "bool_", "str_"))
_PATHS = tuple(
    f"{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
)
_BUILTINS = tuple(
    f"builtins.{name}"
    for name in (
        "bool",
        "bytes",
        "dict",
        "float",
        "frozenset",
        "getattr",
        "int",
        "list",
        "object",
        "range",
        "slice",
        "str",
        "tuple",
    )
)
_OMEGACONF = tuple(
    f"omegaconf.{name}"
    for name in (
        "dictconfig.DictConfig",
        "listconfig.ListConfig",
        "base.ContainerMetadata",
        "base.Metadata",
        "base.SCMode",
        "nodes.AnyNode",
        "nodes.BooleanNode",
        "nodes.BytesNode",
        "nodes.EnumNode",
        "nodes.FloatNode",
        "nodes.IntegerNode",
        "nodes.InterpolationResultNode",
        "nodes.PathNode",
        "nodes.StringNode",
        "nodes.ValueNode",
    )
)
_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "datetime.datetime",
    "datetime.date",
    "datetime.timedelta",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.torch_version.TorchVersion",
    "typing.Any",
    "typing.Union",
)

# (stand-in, full name in the file), as torch.serialization.safe_globals takes them
HARMLESS: list[Any] = [
    *((OrderedDict, name) for name in _DICTIONARIES),
    (_dictionary, "collections.defaultdict"),
    (_list, "collections.deque"),
    *((Inert, name) for name in (*_NUMPY, *_DTYPES, *_NUMBERS, *_PATHS, *_BUILTINS, *_OMEGACONF, *_OBJECTS)),
]


# -- reading ----------------------------------------------------------------------------------------------------------
# What PyTorch's restricted reader says about a name off the list, and about calling what the file itself made.
REFUSED = r"GLOBAL (\S+) (?:was not|whose module)|unrecognized function|Can only (?:create new object|build)"


@dataclass(frozen=True)
class Foreign:
    """A checkpoint that another program wrote.

    Args:
        path: the file.
        state: its tensors by name.
        meta: the ``meta`` entry that OpenMMLab's files have beside the tensors; empty where there is none.
        nested: whether the tensors stood under a key such as 'state_dict', with other entries around them.
    """

    path: Path
    state: dict[str, Tensor]
    meta: Mapping[str, Any]
    nested: bool


def read_foreign(path: str | Path) -> Foreign:
    """Read a ``torch.save`` or ``.safetensors`` file; harmless objects in it become inert stand-ins.

    Args:
        path: the file.

    Returns:
        The checkpoint; a 'module.' in front of its tensor names is removed.

    Raises:
        UnsafeFileError: any other pickled object; the message names it and the remedy.
        ValueError: as ``read_state`` does.
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
            "torch.save(model.state_dict(), PATH), and import that file."
        ) from error
