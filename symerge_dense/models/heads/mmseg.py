"""mmsegmentation's decode heads as heads of this package.

Only this file imports mmseg, and only when such a head is built.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from symerge_dense.models.heads.base import Head
from symerge_dense.registry import HEADS, did_you_mean

# Options that the adapter sets itself, or that would load files or add a second loss.
RESERVED = (
    "in_channels",
    "channels",
    "num_classes",
    "out_channels",
    "threshold",
    "loss_decode",
    "sampler",
    "init_cfg",
    "ignore_index",
)
PROBE = 64  # image size of the one forward pass that finds out in which order the layers run


@HEADS.register_module()
class MMSegHead(Head):
    """A ``BaseDecodeHead`` of ``mmseg.models.decode_heads``, by class name.

    The output has the resolution at which the decode head works. Dropout stays as the class has it.

    Args:
        in_channels: of the backbone's features, finest first.
        strides: of the same features.
        channels: output channels of the task.
        decode_head: for example 'FCNHead', 'UPerHead', 'SegformerHead', 'PSPHead', 'ASPPHead', 'FPNHead'.
        in_index: the feature it reads, or a list of features for heads that read several.
        width: channels inside the head (mmseg calls them ``channels``).
        pre_final: submodule that adapts as 'pre_final'; by default the last ConvModule that runs before ``conv_seg``.
        **options: further arguments of the mmseg class; ``norm_cfg`` is BatchNorm by default.

    Raises:
        ValueError: an unknown class, a head without ``conv_seg`` or with more than one output, or an option that does
            not fit.
    """

    name: ClassVar[str] = "MMSegHead"

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        decode_head: str = "FCNHead",
        in_index: int | Sequence[int] = -1,
        width: int = 256,
        pre_final: str | None = None,
        **options: Any,
    ) -> None:
        index = in_index if isinstance(in_index, int) else list(in_index)
        chosen = {} if pre_final is None else {"pre_final": pre_final}
        super().__init__(
            in_channels, strides, channels, decode_head=decode_head, in_index=index, width=width, **chosen, **options
        )
        _refuse_unsafe(options, decode_head)
        self.head = _build(decode_head, in_channels, strides, channels, index, width, options)
        last = self._last_before_predictor(in_channels, strides)
        self.layers = {"final": ("head.conv_seg",), "pre_final": last}
        if pre_final is not None:
            self.layers["pre_final"] = ()
            self.layers["pre_final"] = tuple(self.layer_modules(pre_final))

    def forward(self, features: list[Tensor]) -> Tensor:
        output = self.head(features)
        if not isinstance(output, Tensor):
            raise ValueError(
                f"decode head {self.options['decode_head']!r} gives {type(output).__name__} instead of "
                "one map (an auxiliary loss?); switch that off by its options or choose another head."
            )
        return output

    @torch.no_grad()
    def _last_before_predictor(self, in_channels: Sequence[int], strides: Sequence[int]) -> tuple[str, ...]:
        """Run once on zeros to find the last ConvModule before conv_seg."""
        from mmcv.cnn import ConvModule

        ran: list[str] = []
        names = [n for n, m in self.named_modules() if isinstance(m, ConvModule) or n == "head.conv_seg"]
        handles = [self.get_submodule(n).register_forward_hook(lambda *_, name=n: ran.append(name)) for n in names]
        features = [
            torch.zeros(1, count, *[max(1, PROBE // stride)] * 2)
            for count, stride in zip(in_channels, strides, strict=True)
        ]
        self.eval()
        with _explained(self.options["decode_head"]):
            self(features)
        self.train()
        for handle in handles:
            handle.remove()
        if "head.conv_seg" not in ran:
            raise ValueError(
                f"decode head {self.options['decode_head']!r} does not predict with conv_seg; choose one "
                "that does, such as FCNHead or UPerHead."
            )
        return tuple(ran[: ran.index("head.conv_seg")][-1:])


def _refuse_unsafe(options: Any, decode_head: str) -> None:
    """Refuse options that name code or files: mmengine would import, call and load them, which no checkpoint may do."""
    items = options.items() if isinstance(options, dict) else enumerate(options) if isinstance(options, list) else ()
    for key, value in items:
        if key in RESERVED:
            raise ValueError(
                f"{decode_head}: option {key!r} is set by the adapter or belongs to training; leave it out."
            )
        if key == "type" and not (isinstance(value, str) and value.isidentifier()):
            raise ValueError(f"{decode_head}: type {value!r} must be a plain registered name such as 'BN', not a path.")
        _refuse_unsafe(list(value) if isinstance(value, tuple) else value, decode_head)


def _build(
    decode_head: str,
    in_channels: Sequence[int],
    strides: Sequence[int],
    channels: int,
    index: int | list[int],
    width: int,
    options: dict[str, Any],
) -> nn.Module:
    cls = _decode_head(decode_head)
    several = isinstance(index, list)
    chosen = index if isinstance(index, list) else [index]
    if any(not -len(in_channels) <= i < len(in_channels) for i in chosen):
        raise ValueError(f"{decode_head}: in_index={index} reaches beyond the {len(in_channels)} features.")
    counts = [in_channels[i] for i in chosen]
    given = {"norm_cfg": {"type": "BN"}, **options}
    if decode_head == "FPNHead":
        given.setdefault("feature_strides", [strides[i] for i in chosen])
    with _explained(f"{decode_head} with in_index={index}"):
        head: nn.Module = cls(
            in_channels=counts if several else counts[0],
            in_index=index,
            channels=width,
            num_classes=channels,
            out_channels=channels,
            threshold=0.5 if channels == 1 else None,
            loss_decode={"type": "CrossEntropyLoss", "avg_non_ignore": True},
            **given,
        )
        head.init_weights()  # type: ignore[operator]  # mmengine's runner would have called it
    return head


def _decode_head(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optional compiled operators that no such head needs
        from mmseg.models import decode_heads
        from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    classes = {key: getattr(decode_heads, key) for key in decode_heads.__all__}
    known = {
        key: cls
        for key, cls in classes.items()
        if issubclass(cls, BaseDecodeHead) and not issubclass(cls, BaseCascadeDecodeHead)
    }
    if name not in known:
        raise ValueError(did_you_mean(name, known, "decode head"))
    return known[name]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Build in mmseg's scope (a Runner may have set another), silently, and turn its failures into ValueError."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about its losses, which are not used
            yield
    except (AssertionError, TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"mmseg cannot run {what}: {type(error).__name__} {error}. Heads that read several features "
            "need in_index as a list, such as [0, 1, 2, 3]; other options are the class's own."
        ) from error
    finally:
        logging.disable(disabled)
