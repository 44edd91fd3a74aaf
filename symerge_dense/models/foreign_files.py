"""Reading checkpoints that other programs wrote: their weights, and plain values about them, but none of their code.

Nothing of another package is imported or run. Every name on the list of harmless ones becomes an empty stand-in, which
ignores what the file says about it. A name that is not on the list makes the reader refuse the file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.serialization import safe_globals

from symerge_dense.models.file_kinds import container_of
from symerge_dense.models.mapped_files import SafetensorsSource, check_index, checkpoint_files
from symerge_dense.models.network_entries import network_in
from symerge_dense.models.weight_files import has_record, listing, read_plain, refuse_non_finite


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


class InertArray(Inert):
    """Stands for a NumPy array, whose numbers are not kept: a network of which it is a part is refused."""

    is_array = True


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
_ARRAYS = tuple(
    f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray._reconstruct", "numeric._frombuffer")
)
_SCALARS = tuple(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))
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
    *((InertArray, name) for name in _ARRAYS),
    *((Inert, name) for name in (*_SCALARS, *_DTYPES, *_NUMBERS, *_PATHS, *_BUILTINS, *_OMEGACONF, *_OBJECTS)),
]


# -- reading ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Foreign:
    """A checkpoint, of this package or another program.

    Args:
        path: the file, or the folder of its shards.
        state: tensors by name of one network, without wrappers such as 'module.' that all names share.
        meta: the ``meta`` entry that OpenMMLab's files have beside the tensors; empty where there is none.
        key: under which the tensors stood, such as 'state_dict', dotted; '' for the top level.
        wrapper: what was taken off all names.
        remarks: what a user should know of the rest of the file.
        averaged: whether they are averaged (EMA) weights.
    """

    path: Path
    state: dict[str, Tensor]
    meta: Mapping[str, Any]
    key: str = ""
    wrapper: str = ""
    remarks: tuple[str, ...] = ()
    averaged: bool = False

    @property
    def nested(self) -> bool:
        """Whether the tensors stood under a key, with other entries around them."""
        return bool(self.key)


def read_foreign(path: str | Path, key: str | None = None, ema: bool = False, mapped: bool = False) -> Foreign:
    """Read the weights of one network; harmless objects in the file become inert stand-ins.

    It is the one reader of checkpoints: for merging, for importing, and for the base.

    Args:
        path: a file of ``torch.save`` (by any pickle protocol, also of PyTorch before 1.6) or of safetensors, told
            apart by their content; a folder of the shards of one network; or the index of shards.
        key: of the network in a file of several, such as 'teacher'; '.' stands for the top level.
        ema: take the averaged (EMA) weights.
        mapped: read values when they are used, so that files may be larger than memory, and do not check them yet.

    Returns:
        The checkpoint.

    Raises:
        UnsafeFileError: it holds any other pickled object; the message names it and the remedy.
        CorruptFileError: it is truncated or damaged.
        ValueError: a file is missing or is no checkpoint, it holds no network or several, its weights are quantised, an
            adapter, or not finite; the message says what is there, and what to do.
    """
    path = Path(path)
    files, index = checkpoint_files(path)
    if key is None and len(files) == 1 and has_record(files[0]):
        return _own(path, files[0], mapped)
    contents = {file.name: _content(file, mapped) for file in files}
    content = next(iter(contents.values()))
    if len(files) > 1 or index is not None:
        shards = {file: _shard(part, path / file) for file, part in contents.items()}
        content = _joined(shards, path)
        if index is not None:
            check_index(index, {name: file for file, shard in shards.items() for name in shard}, path)
    found = network_in(content, str(path), key, ema)
    if not mapped:
        refuse_non_finite(found.state, str(path))
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    return Foreign(path, found.state, meta, found.key, found.wrapper, found.remarks, found.averaged)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of the one network in a checkpoint.

    Args:
        path: as for ``read_foreign``.

    Raises:
        ValueError: as ``read_foreign`` does.
    """
    return read_foreign(path).state


def _own(path: Path, file: Path, mapped: bool) -> Foreign:
    """A model file of this package, all of it: its record says what it is, so its names say nothing."""
    state = dict(SafetensorsSource(file))
    if not mapped:
        refuse_non_finite(state, str(path))
    return Foreign(path, state, {})


def _content(path: Path, mapped: bool) -> Any:
    if container_of(path) == "safetensors":
        return dict(SafetensorsSource(path))
    with safe_globals(HARMLESS):
        return read_plain(path, mapped)


def _shard(content: Any, source: Path) -> dict[str, Tensor]:
    """Tensors of one shard by the names they have in it."""
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{source} is no shard of a network: shards hold tensors by name and nothing else.")
    return dict(content)


def _joined(parts: Mapping[str, Mapping[str, Tensor]], source: Path) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for file, part in parts.items():
        twice = [name for name in part if name in joined]
        if twice:
            raise ValueError(
                f"{source}: tensors {listing(twice)} are in two files, the second is {file}; a folder holds the shards "
                "of one network, each tensor once."
            )
        joined |= part
    return joined
