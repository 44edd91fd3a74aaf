"""The shared backbone: any timm network as a pyramid of feature maps, and the loading of its base weights.

Shape legend: N images, C channels, H x W image size, h x w feature size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from mmengine.dist import is_main_process
from timm.layers import PatchEmbed
from torch import Tensor, nn

from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.resnet_names import with_timm_stem
from symerge_dense.models.timm_weights import create, download, for_features
from symerge_dense.models.weight_files import MatchReport, has_record, match_report, read_metadata, state_hash
from symerge_dense.registry import did_you_mean

# Arguments of timm that load files or change what a backbone is; only load_base may load weights.
RESERVED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "feature_cls",
    "out_indices",
    "scriptable",
    "exportable",
)
LEVELS = 4
# Prefixes of the backbone's tensors in files of whole networks: ours, LibMTL's, OpenMMLab's.
PREFIXES = ("backbone.body.", "encoder.", "backbone.")


class TimmBackbone(nn.Module):
    """A timm network that gives feature maps.

    ``channels`` and ``strides`` have one entry per feature map. The weights start random; ``load_base`` loads others.

    Args:
        name: timm model, for example 'resnet50' or 'vit_small_patch14_dinov2.lvd142m'.
        out_indices: which features; by default the last four levels of a pyramid (strides 4, 8, 16, 32 of a ResNet),
            or four evenly spaced blocks of a plain transformer.
        output_stride: coarsest stride, 8, 16 or 32, of networks that can trade stride for dilation.
        img_size: (H, W) that a transformer's position embedding is made for.
        **timm_args: further arguments of the timm model.

    Raises:
        ValueError: an unknown name, an argument that the network does not take, or an image size that the patches do
            not divide.

    >>> backbone = TimmBackbone("resnet18", out_indices=(2, 4))
    >>> backbone.channels, backbone.strides
    ([128, 512], [8, 32])
    >>> [tuple(level.shape) for level in backbone(torch.zeros(2, 3, 64, 96))]
    [(2, 128, 8, 12), (2, 512, 2, 3)]
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = None,
        output_stride: int | None = None,
        img_size: Sequence[int] | None = None,
        **timm_args: Any,
    ) -> None:
        super().__init__()
        _check_name(name)
        _check_arguments(timm_args)
        shape = {"output_stride": output_stride, "img_size": tuple(img_size) if img_size else None}
        self.name = name
        self.timm_args = {**{key: value for key, value in shape.items() if value is not None}, **timm_args}
        self.out_indices = list(out_indices) if out_indices is not None else _default_levels(name, self.timm_args)
        self.body = create(name, self.timm_args, features_only=True, out_indices=tuple(self.out_indices))
        self.channels: list[int] = list(self.body.feature_info.channels())
        self.strides: list[int] = list(self.body.feature_info.reduction())
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        if (embed := self._embed()) is not None and img_size is not None:
            _check_divides(embed, *img_size)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able arguments that build this backbone again."""
        spec = {"name": self.name, "out_indices": self.out_indices, **self.timm_args}
        plain: dict[str, Any] = json.loads(json.dumps(spec))
        return plain

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps (N,C,h,w), finest first.

        Args:
            image: normalised images (N,3,H,W).

        Raises:
            ValueError: an image size for which the position embedding is not made, or that the patches do not divide.
        """
        if (embed := self._embed()) is not None:
            _check_image(embed, *image.shape[-2:])
        features: list[Tensor] = list(self.body(image))
        if self.channels_last:
            return [rearrange(feature, "n h w c -> n c h w").contiguous() for feature in features]
        return features

    def _embed(self) -> PatchEmbed | None:
        """A transformer's patch embedding, looked up: as an attribute it would be saved twice."""
        owner = getattr(self.body, "model", self.body)
        embed = getattr(owner, "patch_embed", None)
        return embed if isinstance(embed, PatchEmbed) else None


def _check_name(name: str) -> None:
    architecture = name.split(".")[0]  # what follows a dot names pretrained weights
    if not timm.is_model(architecture) or ":" in name or "/" in name:
        raise ValueError(_shorten(did_you_mean(architecture, timm.list_models(), "timm model")))


def _shorten(text: str) -> str:
    return f"{text.split(' Known:')[0]} timm.list_models() lists all."


def _check_arguments(timm_args: dict[str, Any]) -> None:
    for key in timm_args:
        if key in RESERVED:
            raise ValueError(
                f"backbone argument {key!r} is not allowed here: weights are loaded by load_base "
                "(checkpoint=PATH or pretrained=True), and the features by out_indices."
            )
    try:
        json.dumps(timm_args)
    except TypeError as error:
        raise ValueError(f"backbone arguments {timm_args} must be numbers, texts and lists: {error}.") from error


def _default_levels(name: str, timm_args: dict[str, Any]) -> list[int]:
    with torch.device("meta"):
        strides = [level["reduction"] for level in create(name, timm_args, features_only=True).feature_info.info]
    count = min(LEVELS, len(strides))
    if len(set(strides)) == 1:  # a plain transformer: blocks that differ in depth only
        return [(i + 1) * len(strides) // count - 1 for i in range(count)]
    return list(range(len(strides)))[-count:]


def _check_divides(embed: PatchEmbed, *size: int) -> None:
    patch = embed.patch_size
    if any(side % step for side, step in zip(size, patch, strict=True)):
        below, above = (
            [max(step, side // step * step + extra * step) for side, step in zip(size, patch, strict=True)]
            for extra in (0, 1)
        )
        raise ValueError(
            f"image size {tuple(size)} is not divisible by the patch size {tuple(patch)}; the nearest "
            f"valid sizes are {below[0]} or {above[0]} high and {below[1]} or {above[1]} wide."
        )


def _check_image(embed: PatchEmbed, *size: int) -> None:
    if embed.img_size is not None and embed.strict_img_size and tuple(size) != tuple(embed.img_size):
        raise ValueError(
            f"this backbone is built for images of {tuple(embed.img_size)}, not {tuple(size)}; build it "
            f"with img_size={tuple(size)}, or resize the data to {tuple(embed.img_size)}."
        )
    if not embed.dynamic_img_pad:
        _check_divides(embed, *size)


# -- first weights ----------------------------------------------------------------------------------------------------
def load_base(
    backbone: TimmBackbone,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    random_init: bool = False,
    allow_partial: bool = False,
) -> str:
    """Load the shared base weights into a backbone, from exactly one source, and print what matched.

    Args:
        backbone: changed in place.
        checkpoint: load this file: a timm or torchvision ``.pth`` or ``.safetensors``, or a whole network, of this
            package or another, whose backbone is used.
        pretrained: load timm's download.
        random_init: keep the weights that the backbone has.
        allow_partial: accept a file that does not fill the whole backbone.

    Returns:
        sha256 of the resulting state.

    Raises:
        ValueError: no source or several, a file that does not fill the backbone, or a failed download.
    """
    if sum((checkpoint is not None, pretrained, random_init)) != 1:
        raise ValueError(
            f"load_base: checkpoint={checkpoint}, pretrained={pretrained}, random_init={random_init}; "
            "choose exactly one source of the base weights."
        )
    if not random_init:
        if checkpoint is None:  # timm has resampled it for this network
            state, source = download(backbone.name, backbone.timm_args), f"timm's download of {backbone.name}"
            grid = _grid(backbone)
        else:
            state, source = read_foreign(checkpoint).state, str(checkpoint)
            grid = _grid(_described(checkpoint)) if has_record(checkpoint) else None
        load_weights(backbone, state, source, allow_partial, grid)
    return state_hash(backbone.state_dict())


def _described(checkpoint: str | Path) -> TimmBackbone:
    """The backbone that one of our files describes, without weights."""
    with torch.device("meta"):
        return TimmBackbone(**read_metadata(checkpoint)["backbone"])


def _grid(backbone: TimmBackbone) -> tuple[int, int] | None:
    """Patches (high, wide) of a transformer; None without patches."""
    embed = backbone._embed()
    return None if embed is None or embed.grid_size is None else (embed.grid_size[0], embed.grid_size[1])


def _inside(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors of a whole network's; all, where the file holds a backbone alone."""
    found = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)]
    prefix = found[0] if found else ""
    if set(state) & set(wanted) or any(name.startswith(prefix) for name in wanted):
        return state
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_weights(
    backbone: TimmBackbone,
    state: dict[str, Tensor],
    source: str,
    allow_partial: bool = False,
    grid: tuple[int, int] | None = None,
) -> MatchReport:
    """Load tensors into a backbone, and print what matched.

    Args:
        backbone: changed in place.
        state: its tensors by name, or a whole network's: then those under 'backbone.body.', 'encoder.' or 'backbone.'
            are taken. A position embedding of another grid is resampled.
        source: where the tensors come from, for messages.
        allow_partial: leave tensors that do not match as they are, instead of raising.
        grid: (patches high, wide) of the given position embedding; by default the grid of timm's pretrained weights
            or a square.

    Returns:
        The printed report.

    Raises:
        ValueError: nothing matches, or, without ``allow_partial``, anything less than a full match.
    """
    wanted = backbone.body.state_dict()
    state = with_timm_stem(_inside(state, wanted), wanted)
    given, dropped = for_features(state, backbone.name, backbone.timm_args, wanted, grid)
    report = match_report(
        {f"backbone.{name}": value for name, value in given.items()},
        {f"backbone.{name}": value for name, value in wanted.items()},
        [f"backbone.{name}" for name in dropped],
    )
    if is_main_process():
        print(f"{source} into {backbone.name}\n{report}")
    if not report.matched or not (report.full or allow_partial):
        raise ValueError(
            f"{source} does not match the backbone {backbone.name}.\n{report}\nGive the checkpoint of "
            "this architecture and its timm arguments, or allow_partial=True to load what matches."
        )
    fitting = [name.removeprefix("backbone.") for name in report.matched]
    backbone.body.load_state_dict({name: given[name] for name in fitting}, strict=False)
    return report
