"""What checkpoints of other programs pickle beside their weights, and the inert things that are read in its place.

Nothing of another package is imported or run: every name on the list becomes an empty stand-in that swallows whatever
the file says about it. A name that is not on the list makes the reader refuse the file.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


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
    "addict.addict.Dict", "mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict",
    "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict")
_NUMPY = tuple(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar"))
_DTYPES = tuple(f"numpy.dtypes.{kind}DType" for kind in
                ("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float16", "Float32",
                 "Float64", "Str"))
_NUMBERS = tuple(f"numpy.{kind}" for kind in ("float64", "float32", "int64", "int32", "bool_", "str_"))
_PATHS = tuple(f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in
               ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"))
_BUILTINS = tuple(f"builtins.{name}" for name in
                  ("bool", "bytes", "dict", "float", "frozenset", "getattr", "int", "list", "object", "range", "slice",
                   "str", "tuple"))
_OMEGACONF = tuple(f"omegaconf.{name}" for name in
                   ("dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata", "base.Metadata",
                    "base.SCMode", "nodes.AnyNode", "nodes.BooleanNode", "nodes.BytesNode", "nodes.EnumNode",
                    "nodes.FloatNode", "nodes.IntegerNode", "nodes.InterpolationResultNode", "nodes.PathNode",
                    "nodes.StringNode", "nodes.ValueNode"))
_OBJECTS = ("argparse.Namespace", "types.SimpleNamespace", "datetime.datetime", "datetime.date", "datetime.timedelta",
            "mmengine.logging.history_buffer.HistoryBuffer", "numpy.dtype", "numpy.ndarray",
            "torch.torch_version.TorchVersion", "typing.Any", "typing.Union")

# (stand-in, full name in the file), as torch.serialization.safe_globals takes them
HARMLESS: list[Any] = [
    *((OrderedDict, name) for name in _DICTIONARIES),
    (_dictionary, "collections.defaultdict"), (_list, "collections.deque"),
    *((Inert, name) for name in (*_NUMPY, *_DTYPES, *_NUMBERS, *_PATHS, *_BUILTINS, *_OMEGACONF, *_OBJECTS))]
