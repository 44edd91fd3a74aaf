"""Adaptive methods on the tiny family: one setting, and every method run in it once and remembered."""

from __future__ import annotations

import functools

from symerge_dense.registry import ADAPTIVE_METHODS
from symerge_dense.testing.adaptive_methods import ROUNDS, TinyRuns
from symerge_dense.testing.adaptive_methods import shared_context as shared
from symerge_dense.testing.adaptive_methods import tiny_context as setting

__all__ = ["NAMES", "ROUNDS", "again", "once", "runs", "setting", "shared"]
NAMES = list(ADAPTIVE_METHODS)


@functools.cache
def runs(name):
    """The runs of a method with its defaults; the base and the experts are everybody's."""
    return TinyRuns(lambda: ADAPTIVE_METHODS.build({"type": name}))


def once(name):
    """``Adapted`` of a method with its defaults."""
    return runs(name).first


def again(name, **changes):
    """The same run anew, or with another seed."""
    return runs(name).again(**changes)
