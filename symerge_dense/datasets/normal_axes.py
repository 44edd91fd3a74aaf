"""Axes of stored normals: who wrote which component into which channel, and with which sign."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OURS = "x,z,y"
AXIS = re.compile(r"([+-]?)([xyz])")


class NormalAxes(NamedTuple):
    """Component c of this package, (x right, z forward, y up)[c], is ``signs[c]`` times stored channel ``channels[c]``.

    Made by ``parse_axes``.
    """

    channels: tuple[int, ...]
    signs: tuple[int, ...]

    def apply(self, normals: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stored normals (H,W,3) in the channels of this package; the zero vector stays zero. Float32, lossless."""
        turned = normals[..., list(self.channels)] * np.array(self.signs, np.float32)
        return np.asarray(turned + np.float32(0), np.float32)  # no -0


def parse_axes(text: str) -> NormalAxes:
    """Axes from a list of three signed letters: what the stored channels 0, 1, 2 are, in terms of the camera.

    x is right, y up, z forward. 'x,z,y' is this package's own order; 'x,-y,z' is stored (right, down, forward), the
    axes of OpenCV. Raises ValueError for anything but x, y and z once each, with a sign or without.
    """
    found = [AXIS.fullmatch(part.strip()) for part in text.split(",")] if isinstance(text, str) else []
    letters = [match[2] for match in found if match]
    if len(found) != 3 or sorted(letters) != ["x", "y", "z"]:
        raise ValueError(f"normal_axes={text!r}: give what the three stored channels are, x (right), y (up) and z "
                         f"(forward) once each, a minus for the opposite way; for instance {OURS!r} or 'x,-y,z'.")
    channels = tuple(letters.index(letter) for letter in OURS.split(","))
    return NormalAxes(channels, tuple(-1 if (match := found[channel]) and match[1] == "-" else 1
                                      for channel in channels))
