"""The config that OpenMMLab keeps as text in a checkpoint: read as literals, never executed."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.models.heads.mmseg import RESERVED
from symerge_dense.models.resnet_names import BASIC
from symerge_dense.progress import say

FLAGS = "--head, --output-stride, --mean, --std and --align-corners"
LONGEST = 2**20  # characters of a config
BATCH_NORMS = ("BN", "BN2d", "SyncBN", "BatchNorm2d", "SyncBatchNorm")
STRIDES = {((1, 2, 2, 2), (1, 1, 1, 1)): 32, ((1, 2, 2, 1), (1, 1, 1, 2)): 16, ((1, 2, 1, 1), (1, 1, 2, 4)): 8}
# Options of mmseg's ResNet that do not change its output, or that are checked below or read off the tensors.
HARMLESS = {
    "type",
    "depth",
    "num_stages",
    "out_indices",
    "strides",
    "dilations",
    "contract_dilation",
    "style",
    "norm_cfg",
    "norm_eval",
    "frozen_stages",
    "with_cp",
    "pretrained",
    "init_cfg",
    "deep_stem",
    "avg_down",
    "zero_init_residual",
    "stem_channels",
    "base_channels",
    "in_channels",
}


def config_options(meta: Mapping[str, Any], source: str) -> NetworkOptions:
    """Options of the network by the config in a checkpoint's ``meta``.

    Args:
        meta: has the config as text under 'cfg' (mmengine) or 'config' (mmcv); without one, no option is known.
        source: the file, for messages.

    Raises:
        ValueError: the config is not made of literals, or the network differs from timm's (caffe style, plugins, other
            strides, a cascade of heads).
    """
    text = meta.get("cfg", meta.get("config"))
    if not isinstance(text, str):
        return NetworkOptions()
    config = literals(text, ("model", "data_preprocessor", "img_norm_cfg"), source)
    try:
        return _options(config, source)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"the config in {source} describes no network of mmseg ({error}); save the checkpoint without "
            f"its meta and give {FLAGS}."
        ) from error


def _options(config: Mapping[str, Any], source: str) -> NetworkOptions:
    model = _mapping(config.get("model"), "model", source)
    backbone = _mapping(model.get("backbone"), "model.backbone", source)
    head = _mapping(model.get("decode_head"), "model.decode_head", source)
    stride, levels = _backbone(backbone, source)
    mean, std = _colours(config, model, source)
    if _mapping(model.get("test_cfg") or {}, "model.test_cfg", source).get("mode") == "slide":
        say(f"{source} was tested in sliding windows; here it predicts whole images at once.")
    return NetworkOptions(
        head=_head(head),
        mean=mean,
        std=std,
        align_corners=bool(head.get("align_corners", False)),
        output_stride=stride,
        out_indices=levels,
    )


# -- the text ---------------------------------------------------------------------------------------------------------
def literals(text: str, names: Collection[str], source: str) -> dict[str, Any]:
    """Values of top-level assignments in Python text: constants, lists, tuples, dicts, and calls of dict().

    Args:
        text: of the config.
        names: the wanted variables.
        source: the file, for messages.

    Returns:
        {variable: value}.

    Raises:
        ValueError: the text is too long or not Python, or a value is made of anything else.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the config in {source} has {len(text)} characters, more than {LONGEST}; it is not read.")
    try:
        return {
            target.id: _value(node.value)
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in names
        }
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"the config text in {source} is not read: {error or type(error).__name__}. It may hold "
            "constants, lists, tuples, dicts and dict(...) only. Save the checkpoint without its meta "
            f"and give {FLAGS}."
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("dict", "list", "tuple"):
        return _call(node, node.func.id)
    if isinstance(node, ast.Dict):
        return {k: v for key, value in zip(node.keys, node.values, strict=True) for k, v in _entries(key, value)}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"line {node.lineno} holds {ast.unparse(node)[:60]!r}, which is no literal") from error


def _call(node: ast.Call, kind: str) -> Any:
    given = [_value(item) for item in node.args]
    if len(given) > 1 or (node.keywords and kind != "dict"):
        raise ValueError(f"line {node.lineno} holds {ast.unparse(node)[:60]!r}, which is no literal")
    if kind != "dict":
        return (list if kind == "list" else tuple)(*given)
    named = [
        entry
        for word in node.keywords
        for entry in _entries(None if word.arg is None else ast.Constant(word.arg), word.value)
    ]
    return {**dict(*given), **dict(named)}


def _entries(key: ast.expr | None, value: ast.expr) -> list[tuple[Any, Any]]:
    """The entries of ``key: value``; without a key, those of ``**value``."""
    found = _value(value)
    return [(_value(key), found)] if key is not None else list(dict(found).items())


# -- the network ------------------------------------------------------------------------------------------------------
def _mapping(value: Any, what: str, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{what} in the config of {source} is {type(value).__name__}, not one dict(...); only an "
            "EncoderDecoder with one decode head is imported."
        )
    return value


def _plain(name: Any) -> str:
    """'mmseg.models.FCNHead' and 'mmseg.FCNHead' as 'FCNHead'."""
    return str(name).rsplit(".", 1)[-1]


def _head(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in config.items()
        if key not in (*RESERVED, "type", "pretrained") and not key.startswith("_")
    }
    norm = kept.get("norm_cfg")
    if isinstance(norm, Mapping) and _plain(norm.get("type")) in BATCH_NORMS:  # in evaluation they are one
        kept["norm_cfg"] = {**norm, "type": "BN"}
    width = {"width": config["channels"]} if "channels" in config else {}
    return {"decode_head": _plain(config.get("type")), "in_index": -1, **width, **kept}  # -1 is mmseg's own default


def _backbone(config: Mapping[str, Any], source: str) -> tuple[int, list[int] | None]:
    """(output stride, levels or None for all four) of mmseg's ResNet; ValueError if timm's computes something else."""
    depth, style = config.get("depth"), config.get("style", "pytorch")
    strides, dilations = (
        tuple(config.get(key, default)) for key, default in (("strides", (1, 2, 2, 2)), ("dilations", (1, 1, 1, 1)))
    )
    dilated, norm = max(dilations) > 1, config.get("norm_cfg") or {}
    faults = [f"{key}={config[key]!r}" for key in config if key not in HARMLESS and config[key] not in (None, False)]
    if _plain(config.get("type")) not in ("ResNet", "ResNetV1c"):
        faults.append(f"type={config.get('type')!r}")
    if style != "pytorch":
        faults.append(f"style={style!r}")
    if (strides, dilations) not in STRIDES:
        faults.append(f"strides={strides}, dilations={dilations}")
    if dilated and not config.get("contract_dilation", False):
        faults.append("dilation without contract_dilation")
    if dilated and depth in BASIC:
        faults.append(f"dilation at depth {depth}")
    if _plain(norm.get("type", "BN")) not in BATCH_NORMS or norm.get("eps", 1e-5) != 1e-5:
        faults.append(f"norm_cfg={dict(norm)}")
    if faults:
        raise ValueError(
            f"the backbone of {source} has {'; '.join(faults)}: timm's ResNet computes something else. "
            "Imported are ResNet (V1b) and ResNetV1c of stride 32, or dilated to 16 or 8 with "
            "contract_dilation=True."
        )
    levels = list(config.get("out_indices", (0, 1, 2, 3)))
    return STRIDES[strides, dilations], None if levels == [0, 1, 2, 3] else [level + 1 for level in levels]


def _colours(config: Mapping[str, Any], model: Mapping[str, Any], source: str) -> tuple[Any, Any]:
    """(mean, std) of R, G, B on the 0..255 scale; (None, None) where the config has none."""
    found = model.get("data_preprocessor") or config.get("data_preprocessor")
    found = found or {"bgr_to_rgb": True, **config.get("img_norm_cfg", {})}  # mmcv's Normalize turns to RGB by default
    if found.get("mean") is None or found.get("std") is None:
        return None, None
    if not found.get("to_rgb", found.get("bgr_to_rgb", False)):
        raise ValueError(
            f"{source} was trained on BGR images (bgr_to_rgb is not set); images here are RGB, so it is not imported."
        )
    return tuple(map(float, found["mean"])), tuple(map(float, found["std"]))
