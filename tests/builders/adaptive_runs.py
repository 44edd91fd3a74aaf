"""Adaptive methods on the tiny family: one setting, and every method run in it once and remembered."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path

import torch

from builders import tiny
from symerge_dense.adaptation.method import AdaptationContext
from symerge_dense.adaptation.options import make_options
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.registry import ADAPTIVE_METHODS

NAMES = list(ADAPTIVE_METHODS)
ROUNDS = 6  # twice the whole pool; no augmentation, so that parts of the curve can be compared
OPTIONS = {"rounds": ROUNDS, "batch_size": 4, "augment": None, "recalibration_images": 8}


def setting(folder, spec=tiny.CNN, seed=3, family=None, **options):
    base, experts, _ = family or tiny.family(spec)
    pool = Unlabelled(tiny.TinySet(tiny.tasks(), split="pool"))  # could give targets, and would tell
    return AdaptationContext(
        base, experts, pool, make_options(**{**OPTIONS, **options}), torch.device("cpu"), seed, Path(folder)
    )


@functools.cache
def shared():
    """The setting that ``once`` runs in, made for this process; its base and experts must survive all methods."""
    return setting(tempfile.mkdtemp())


@functools.cache
def once(name):
    """``Adapted`` of a method with its defaults; the base and the experts are everybody's."""
    return ADAPTIVE_METHODS.build({"type": name}).run(shared())


def again(name, **changes):
    """The same run anew, or with another seed."""
    return ADAPTIVE_METHODS.build({"type": name}).run(dataclasses.replace(shared(), **changes))
