"""SyMerge, https://arxiv.org/abs/2412.19098, and its controls: the same rounds, images, expert labels and balance.

| method               | coefficients  | heads                       | question                                        |
|----------------------|---------------|-----------------------------|-------------------------------------------------|
| symerge              | learned       | one layer learned           |                                                 |
| symerge_coefficients | learned       | the experts'                | does the layer matter?                          |
| symerge_layer        | initial       | one layer learned           | do the coefficients matter?                     |
| layer_on_base        | 0: no merge   | one layer learned           | is it synergy, or just fitting?                 |
| head_distillation    | initial       | all layers learned          | is one layer, chosen well, as good as the head? |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from symerge_dense.adaptation.method import AdaptationContext, OptionVariant
from symerge_dense.registry import ADAPTIVE_METHODS

PAPER = "https://arxiv.org/abs/2412.19098"
_FROZEN = {"learn_coefficients": False, "learn_layer": True}


@ADAPTIVE_METHODS.register_module()
class SyMerge(OptionVariant):
    """The options as given."""

    name: ClassVar[str] = "symerge"
    title: ClassVar[str] = "SyMerge"
    paper: ClassVar[str] = PAPER
    learns: ClassVar[str] = "coefficients and one layer per head"


@ADAPTIVE_METHODS.register_module()
class SyMergeCoefficients(OptionVariant):
    """Only the coefficients learn; the heads stay the experts'."""

    name: ClassVar[str] = "symerge_coefficients"
    title: ClassVar[str] = "SyMerge, coefficients only"
    paper: ClassVar[str] = PAPER
    learns: ClassVar[str] = "coefficients"
    changes: ClassVar[Mapping[str, Any]] = {"learn_coefficients": True, "learn_layer": False}


@ADAPTIVE_METHODS.register_module()
class SyMergeLayer(OptionVariant):
    """Only the adapted layer learns; the coefficients keep their initial value."""

    name: ClassVar[str] = "symerge_layer"
    title: ClassVar[str] = "SyMerge, layer only"
    paper: ClassVar[str] = PAPER
    learns: ClassVar[str] = "one layer per head"
    changes: ClassVar[Mapping[str, Any]] = _FROZEN


@ADAPTIVE_METHODS.register_module()
class LayerOnBase(OptionVariant):
    """The adapted layer on the pretrained encoder, all coefficients 0.

    It uses no expert's backbone, so all that it gains comes from fitting.
    """

    name: ClassVar[str] = "layer_on_base"
    title: ClassVar[str] = "layer on the base encoder"
    paper: ClassVar[str] = PAPER
    learns: ClassVar[str] = "one layer per head"
    changes: ClassVar[Mapping[str, Any]] = {**_FROZEN, "initial": 0.0, "clamp": None}

    def note(self, context: AdaptationContext) -> str:
        return "control: pretrained encoder, no task vectors"


@ADAPTIVE_METHODS.register_module()
class HeadDistillation(OptionVariant):
    """Whole heads learn the experts' labels on the frozen initial merge.

    It is the head re-alignment of SIMO (https://arxiv.org/abs/2504.11268) with expert labels instead of ground truth.
    The learning rate is 1e-3, the highest of SIMO's search, whatever ``layer_lr`` the context has: predictors learn
    too, and no normalisation follows them.
    """

    name: ClassVar[str] = "head_distillation"
    title: ClassVar[str] = "head distillation"
    paper: ClassVar[str] = "https://arxiv.org/abs/2504.11268"
    learns: ClassVar[str] = "whole heads"
    changes: ClassVar[Mapping[str, Any]] = {**_FROZEN, "layer": "head", "layer_lr": 1e-3}

    def note(self, context: AdaptationContext) -> str:
        return "SIMO's head re-alignment with expert labels instead of ground truth"
