"""What stands beside the weights of a network in a checkpoint: state of a training, statistics, or more weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

# A key says training where all its words do: 'loss_head' may be a network, 'loss_scaler' is none.
TRAINING = re.compile(
    r"\w*optim\w*|\w*sched\w*|\w*scaler|amp|rng|random|loops?|callbacks?|criterion|loss(es)?|metrics?|hist(ory)?|"
    r"hyper\w*|hparams|config|cfg|args|opt|message|dataloaders?|sampler|epochs?|steps?|iter(ation)?s?|lr|groups|"
    r"learning|accuracy|acc|m?iou|f1|dice|psnr|rmse|score|patience"
)
BESIDE_THEM = re.compile(
    r"state|states|dict|best|last|val|valid|train|test|total|min|max|mean|global|current|cuda|torch|numpy|np|python|"
    r"cpu|rate|native|scaling|grad|hub|parameters|params?|info|[a-z]|\d+"
)
STATISTICS = re.compile(r"confusion|conf|cm|mat|matrix|mean|std|class|classes|names|ids?|palette|colou?rs?|labels?")
MOMENTS = {"exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "max_exp_avg_sq", "acc_delta"}
WEIGHT_WORDS = {"weight", "bias", "kernel", "running", "gamma", "beta", "w", "b", "g", "scale", "shift", "head"}


def words(text: str) -> list[str]:
    """The words of a key, in lower case.

    Args:
        text: the key, such as 'optimizer_state_dict'.
    """
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def says_training(name: str) -> bool:
    """Whether a key speaks of a training and of nothing else.

    Args:
        name: the key.
    """
    found = words(name)
    return any(map(TRAINING.fullmatch, found)) and all(
        TRAINING.fullmatch(word) or BESIDE_THEM.fullmatch(word) for word in found
    )


def says_statistics(name: str) -> bool:
    """Whether a key speaks of class names, a confusion matrix, means of images and the like.

    Args:
        name: the key.
    """
    found = words(name)
    return bool(found) and all(STATISTICS.fullmatch(word) or BESIDE_THEM.fullmatch(word) for word in found)


def named_weight(name: str, value: Any) -> bool:
    """Whether an entry looks like a parameter of a layer by its name; numbers that are no tensors, too.

    Args:
        name: its name.
        value: the entry.
    """
    if isinstance(value, Tensor) and not (value.is_floating_point() and value.ndim):
        return False
    return bool(WEIGHT_WORDS & set(words(name))) or "." in name


def is_training_state(name: str, value: Mapping[Any, Any]) -> bool:
    """Whether a dict is state of a training: its key says so, and no parameters of layers are in it.

    Args:
        name: its key.
        value: the dict.
    """
    return is_optimizer(value) or (says_training(name) and not _holds_weights(value))


def is_optimizer(value: Mapping[Any, Any]) -> bool:
    """Whether a dict is the state of an optimizer, or of one parameter in it.

    Args:
        value: the dict.
    """
    return "param_groups" in value or any(name in MOMENTS for name in value)


def _holds_weights(value: Mapping[Any, Any]) -> bool:
    """Whether matrices of layers are in a dict; weights of the classes in a loss are vectors."""
    return not is_optimizer(value) and any(
        _holds_weights(part)
        if isinstance(part, Mapping)
        else isinstance(part, Tensor) and sum(n > 1 for n in part.shape) > 1 and named_weight(str(name), part)
        for name, part in value.items()
    )


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, or stands for one in a file.

    Args:
        value: the value.
    """
    return isinstance(value, np.ndarray) or getattr(value, "is_array", False) is True


def nameless(content: Any, chosen: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of arrays and lists of tensors that stand outside the chosen dict.

    Args:
        content: of a checkpoint.
        chosen: dotted key of the dict that is read.
        path: of ``content`` itself.
    """
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        below = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            if not is_training_state(str(name), value):
                yield from nameless(value, chosen, below)
        elif path != chosen and (is_array(value) or (isinstance(value, (list, tuple)) and _tensors(value))):
            yield below, value


def _tensors(values: list[Any] | tuple[Any, ...]) -> bool:
    return any(isinstance(value, Tensor) for value in values)
