"""Tiny real things for tests, which the package ships for the contracts of adaptive methods."""

from symerge_dense.testing.tiny import (
    CNN,
    PREPROCESSING,
    SIZE,
    VIT,
    TinySet,
    backbone,
    expert,
    family,
    tasks,
)

__all__ = ["CNN", "PREPROCESSING", "SIZE", "VIT", "TinySet", "backbone", "expert", "family", "tasks"]
