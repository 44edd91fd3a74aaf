"""The contracts of a head. Each takes a function that builds it for a number of output channels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from symerge_dense.models.heads.base import Head
from symerge_dense.models.module_head import build_head
from symerge_dense.tasks.regression import Regression
from symerge_dense.testing.contract import expect

CHANNELS, STRIDES = (8, 16, 24, 32), (4, 8, 16, 32)  # of the features that heads are built on
HeadBuilder = Callable[[int], Head]


class AnyValues(Regression):
    """A task of any number of channels.

    Args:
        channels: their number.
    """

    name: ClassVar[str] = "any_values"

    def __init__(self, channels: int) -> None:
        self.channels = channels


def head_builder(spec: Mapping[str, Any]) -> HeadBuilder:
    """What the contracts of a head take.

    Args:
        spec: ``{'type': registered name or class, **options}``.
    """
    return lambda channels: build_head(spec, AnyValues(channels), list(CHANNELS), list(STRIDES))


def example_features(images: int = 2, size: int = 64) -> list[Tensor]:
    """Random features of a backbone, finest first.

    Args:
        images: N.
        size: height and width of the images.
    """
    pairs = zip(CHANNELS, STRIDES, strict=True)
    return [torch.randn(images, width, size // stride, size // stride) for width, stride in pairs]


def _same_draws(head: Head, features: list[Tensor]) -> Tensor:
    torch.manual_seed(1)  # some heads draw random bases, in evaluation too
    output: Tensor = head(features)
    return output


def check_output(build: HeadBuilder) -> None:
    """The output has the task's channels, at the resolution of a feature or pooled, for 1, 2 and 13 channels."""
    features = example_features()
    sizes = {tuple(feature.shape[-2:]) for feature in features}
    for channels in (1, 2, 13):
        output = build(channels)(features)
        allowed = {(1, 1)} if build(channels).pooled else sizes
        expect(
            output.shape[:2] == (2, channels) and tuple(output.shape[-2:]) in allowed,
            f"with channels={channels} it gives {tuple(output.shape)}; give (N, {channels}, h, w) with h, w of a "
            f"feature: {sorted(sizes)}; or (N, {channels}, 1, 1), where the class says pooled = True.",
        )


def check_features_are_left_alone(build: HeadBuilder) -> None:
    """The features, which other heads read too, are not changed."""
    features = example_features()
    before = [feature.clone() for feature in features]
    build(3)(features)
    same = len(features) == len(before) and all(map(torch.equal, features, before))
    expect(same, "forward changes the features it is given; no operation in place on them, no pop().")


def check_layers(build: HeadBuilder) -> None:
    """The named layers exist and learn, and the last of 'final' gives the task's channels."""
    head = build(3)
    expect(head.training, "a new head is not in training mode.")
    _same_draws(head, example_features()).square().sum().backward()
    expect("final" in head.layers, "no layer is 'final'; declare layers = {'final': ('name of the predictor',)}.")
    for layer in (name for name, modules in head.layers.items() if modules):
        modules = [head.get_submodule(name) for name in head.layer_modules(layer)]
        gradients = [parameter.grad for module in modules for parameter in module.parameters()]
        expect(gradients, f"layer {layer!r} has no parameters.")
        learns = all(gradient is not None for gradient in gradients) and any(
            g is not None and g.any() for g in gradients
        )
        expect(learns, f"layer {layer!r} has parameters that the output does not depend on.")
    weight = getattr(head.get_submodule(head.layer_modules("final")[-1]), "weight", None)
    shape = None if weight is None else tuple(weight.shape)
    expect(shape is not None and shape[0] == 3, f"'final' has weights {shape}; their first side must be channels=3.")


def check_spec(build: HeadBuilder) -> None:
    """Its spec, kept as JSON in model files, builds the same head again."""
    head = build(3).eval()
    again = head_builder(json.loads(json.dumps(head.spec)))(3).eval()
    again.load_state_dict(head.state_dict())
    features = example_features()
    expect(
        torch.equal(_same_draws(head, features), _same_draws(again, features)) and again.layers == head.layers,
        "with the same weights it gives another output; `spec` must repeat every argument of the constructor.",
    )


def check_images_are_independent(build: HeadBuilder) -> None:
    """In evaluation an image's output does not depend on the rest of its batch."""
    head = build(3).eval()
    features = example_features()
    with torch.no_grad():
        both, one = _same_draws(head, features), _same_draws(head, [feature[:1] for feature in features])
    expect(torch.allclose(both[:1], one, atol=1e-4), "images of one batch mix; normalise over pixels or channels only.")


HEAD_CHECKS = (check_output, check_features_are_left_alone, check_layers, check_spec, check_images_are_independent)
"""The contracts of a head."""
