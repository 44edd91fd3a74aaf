"""Albedo of a surface as a function of its two surface coordinates in metres: checks, stripes, wood, tiles, paint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Color = tuple[float, float, float]
Kind = Literal["plain", "checker", "stripes", "noise", "wood", "tiles", "planks", "spines", "painting"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# One tile of random numbers for every noise texture; fixed, so that a texture depends on its parameters alone.
LATTICE = np.random.default_rng(20240229).random((64, 64)).astype(np.float32)


def _cell(i: Array, j: Array) -> Array:
    """Random number in [0,1) of integer lattice cell (i, j)."""
    return LATTICE[i.astype(np.int32) & 63, j.astype(np.int32) & 63]


def _noise(u: Array, v: Array) -> Array:
    """Smooth value noise in [0,1] with unit period."""
    i, j = np.floor(u), np.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    near = _cell(i, j) * (1 - b) + _cell(i, j + 1) * b
    far = _cell(i + 1, j) * (1 - b) + _cell(i + 1, j + 1) * b
    return np.asarray(near * (1 - a) + far * a)


def _checker(u: Array, v: Array) -> Array:
    return np.asarray((np.floor(u) + np.floor(v)) % 2)


def _stripes(u: Array, v: Array) -> Array:
    return np.asarray(u % 1 < 0.5, np.float32)


def _clouds(u: Array, v: Array) -> Array:
    return np.asarray(0.65 * _noise(u, v) + 0.35 * _noise(2.7 * u + 11, 2.7 * v + 5))


def _wood(u: Array, v: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.sin(2 * np.pi * (u + 1.2 * _noise(0.8 * u, 0.25 * v))))


def _tiles(u: Array, v: Array) -> Array:
    return np.asarray((u % 1 < 0.06) | (v % 1 < 0.06), np.float32)


def _planks(u: Array, v: Array) -> Array:
    row = np.floor(u)
    along = v / 7 + 7 * _cell(row, row + 17)
    gap = (u % 1 < 0.07) | (along % 1 < 0.012)
    return np.asarray(np.where(gap, 1.4, _cell(row, np.floor(along)) * 0.8 + 0.2 * _noise(4 * u, v)))


PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "plain": lambda u, v: 0.35 * _noise(3 * u, 3 * v),
    "checker": _checker,
    "stripes": _stripes,
    "noise": _clouds,
    "wood": _wood,
    "tiles": _tiles,
    "planks": _planks,
}


@dataclass(frozen=True)
class Texture:
    """Two colours, mixed by a repeating pattern; 'spines' (a row of books) and 'painting' add colours of their own.

    Args:
        kind: name of the pattern.
        color: first colour, RGB in 0..1.
        second: second colour, RGB in 0..1.
        period: length after which the pattern repeats, metres.
        phase: shift of the pattern, in periods.
    """

    kind: Kind
    color: Color
    second: Color
    period: float = 0.5
    phase: float = 0.0

    def albedo(self, u: Array, v: Array) -> Array:
        """Albedo (3,n) in [0.02,0.98] at surface coordinates.

        Args:
            u: (n,) metres.
            v: (n,) metres.
        """
        u, v = u / self.period + self.phase, v / self.period + self.phase
        first, second = (np.asarray(color, np.float32)[:, None] for color in (self.color, self.second))
        if self.kind == "spines":
            column = np.floor(u)
            shade = np.stack([_cell(column, np.full_like(u, channel + 7)) for channel in range(3)])
            first, mix = 0.45 * first + 0.55 * shade, (u % 1 < 0.12).astype(np.float32)
        elif self.kind == "painting":
            first = np.stack([_clouds(u + 9 * channel, v) for channel in range(3)]) * 1.1 * first
            mix = np.clip(3 * (_clouds(u + 31, v) - 0.5) + 0.5, 0, 1)
        else:
            mix = PATTERNS[self.kind](u, v)
        return np.asarray(np.clip(first + (second - first) * mix, 0.02, 0.98))
