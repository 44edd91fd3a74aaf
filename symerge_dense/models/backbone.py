"""The shared backbone: any timm network as a pyramid of feature maps, and the loading of its base weights.

Shape legend: N images, C channels, H x W image size, h x w feature size.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from timm.layers import PatchEmbed, resample_abs_pos_embed
from torch import Tensor, nn

from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.image_sizes import (
    COARSEST,
    DYNAMIC,
    SIZE_ERRORS,
    Size,
    any_size,
    check_divides,
    fits,
    padded,
    patched_size,
    strided_size,
    wrong_size,
)
from symerge_dense.models.resnet_names import with_timm_stem
from symerge_dense.models.timm_weights import check_arguments, create, default_levels, download, for_features, inside
from symerge_dense.models.weight_files import MatchReport, has_record, match_report, read_metadata, state_hash
from symerge_dense.progress import say


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
        check_arguments(name, timm_args)
        shape = {"output_stride": output_stride, "img_size": tuple(img_size) if img_size else None}
        self.name = name
        self.timm_args = {**{key: value for key, value in shape.items() if value is not None}, **timm_args}
        self.out_indices = list(out_indices) if out_indices is not None else default_levels(name, self.timm_args)
        arguments = any_size(name, self.timm_args)
        self.body = create(name, arguments, features_only=True, out_indices=tuple(self.out_indices))
        self.channels: list[int] = list(self.body.feature_info.channels())
        self.strides: list[int] = list(self.body.feature_info.reduction())
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self._network = json.dumps(self.spec), max(*self.strides, COARSEST)  # what image_sizes asks about
        if (embed := self._embed()) is not None and img_size is not None:
            check_divides(embed, *img_size)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able arguments that build this backbone again."""
        spec = {"name": self.name, "out_indices": self.out_indices, **self.timm_args}
        plain: dict[str, Any] = json.loads(json.dumps(spec))
        return plain

    @property
    def steps(self) -> Size:
        """What sides are best multiples of, (down, across): the patch, or the coarsest stride where that is larger."""
        embed = self._embed()
        down, across = (max(self.strides),) * 2 if embed is None else embed.patch_size
        return max(down, *self.strides), max(across, *self.strides)

    def padded_size(self, height: int, width: int) -> Size:
        """The size that images are padded to, at the bottom and at the right, before the network sees them.

        A plain transformer's sides are padded to whole patches. Other networks get the images as they are, where they
        can, and else multiples of their coarsest stride. Features cover the padded image.

        Args:
            height: of the images.
            width: of the images.

        Raises:
            ValueError: the network takes no such size; the message names one that it takes.
        """
        if (embed := self._embed()) is not None:
            return patched_size(embed, height, width)
        return strided_size(*self._network, height, width)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps (N,C,h,w) of the padded images, finest first.

        At another size than its own, a transformer's position embedding is resampled by timm.

        Args:
            image: normalised images (N,3,H,W).

        Raises:
            ValueError: an image size that the network does not take.
        """
        height, width = image.shape[-2:]
        try:
            features: list[Tensor] = list(self.body(padded(image, self.padded_size(height, width))))
        except SIZE_ERRORS as error:
            if isinstance(error, ValueError) or fits(self._network[0], height, width):
                raise
            if (fault := wrong_size(*self._network, height, width)) is None:
                raise
            raise fault from error
        if self.channels_last:
            return [rearrange(feature, "n h w c -> n c h w").contiguous() for feature in features]
        return features

    def for_size(self, height: int, width: int) -> TimmBackbone:
        """A copy for images of one size: its position embedding is resampled once, not in every pass.

        Exports take it, so that no resampling is in their graphs. Networks without a position embedding to resample
        are copied as they are.

        Args:
            height: of the images.
            width: of the images.

        Returns:
            A backbone with its own weights; it takes images of ``padded_size(height, width)`` alone, and pads none.

        Raises:
            ValueError: the network takes no such size.
        """
        size, owner = self.padded_size(height, width), getattr(self.body, "model", self.body)
        if getattr(owner, "pos_embed", None) is None or not getattr(owner, DYNAMIC, False):
            return copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            made = TimmBackbone(**{**self.spec, "img_size": size, DYNAMIC: False})
        state = self.state_dict()
        name = next(name for name in state if name.endswith("pos_embed"))
        extra = 0 if owner.no_embed_class else owner.num_prefix_tokens
        grid, wanted = owner.patch_embed.grid_size, getattr(made.body, "model", made.body).patch_embed.grid_size
        state[name] = resample_abs_pos_embed(state[name], list(wanted), list(grid), num_prefix_tokens=extra)
        made.load_state_dict(state)
        return made.to(state[name].device).train(self.training)

    def _embed(self) -> PatchEmbed | None:
        """A transformer's patch embedding, looked up: as an attribute it would be saved twice."""
        owner = getattr(self.body, "model", self.body)
        embed = getattr(owner, "patch_embed", None)
        return embed if isinstance(embed, PatchEmbed) else None


# -- first weights ----------------------------------------------------------------------------------------------------
def load_base(
    backbone: TimmBackbone,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    random_init: bool = False,
    allow_partial: bool = False,
    key: str | None = None,
    ema: bool = False,
) -> str:
    """Load the shared base weights into a backbone, from exactly one source, and print what matched.

    Args:
        backbone: changed in place.
        checkpoint: load this file: a timm or torchvision ``.pth`` or ``.safetensors``, or a whole network, of this
            package or another, whose backbone is used.
        pretrained: load timm's download.
        random_init: keep the weights that the backbone has.
        allow_partial: accept a file that does not fill the whole backbone.
        key: of the network, in a checkpoint of several.
        ema: take the checkpoint's averaged (EMA) weights.

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
            found = read_foreign(checkpoint, key, ema)
            if ema and not found.averaged:
                raise ValueError(f"ema=True: {checkpoint} holds no averaged (EMA) weights; leave it out.")
            state, source = found.state, str(checkpoint)
            grid = _grid(_described(checkpoint)) if Path(checkpoint).is_file() and has_record(checkpoint) else None
            for remark in found.remarks:
                say(f"{source}: {remark}")
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
        state: its tensors by name, or a whole network's: then those under the prefix that fits the backbone's names
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
    state = with_timm_stem(inside(state, backbone.name, backbone.timm_args, wanted, source), wanted)
    given, dropped = for_features(state, backbone.name, backbone.timm_args, wanted, grid)
    report = match_report(
        {f"backbone.{name}": value for name, value in given.items()},
        {f"backbone.{name}": value for name, value in wanted.items()},
        [f"backbone.{name}" for name in dropped],
    )
    say(f"{source} into {backbone.name}\n{report}")
    if not report.matched or not (report.full or allow_partial):
        raise ValueError(
            f"{source} does not match the backbone {backbone.name}.\n{report}\nGive the checkpoint of "
            "this architecture and its timm arguments, or allow_partial=True to load what matches."
        )
    fitting = [name.removeprefix("backbone.") for name in report.matched]
    backbone.body.load_state_dict({name: given[name] for name in fitting}, strict=False)
    return report
