"""Rooms as another camera sees them, or in other light: the same scenes, changed after they were drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from symerge_dense.datasets.rooms.scene import Camera, Scene, Vector

HEADROOM = 0.15  # metres that a camera keeps from floor and ceiling
STEEPEST = 60.0  # degrees that it may be turned by


@dataclass(frozen=True)
class Shift:
    """How camera and light differ from those that a scene was drawn with. The defaults change nothing.

    Args:
        height: metres that the camera is moved up; it stays 0.15 m from floor and ceiling.
        pitch: degrees that it looks further up, -60 to 60.
        roll: degrees that it is turned clockwise about its axis, -60 to 60.
        ambient: factor on the ambient light, at least 0.
        lamp: factor on the light of the lamp, at least 0.

    Raises:
        ValueError: a value is out of range.
    """

    height: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    ambient: float = 1.0
    lamp: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise ValueError(f"shift: {name}={value!r} must be a number.")
        for name, value in (("pitch", self.pitch), ("roll", self.roll)):
            if abs(value) > STEEPEST:
                raise ValueError(f"shift: {name}={value} degrees; give -{STEEPEST:g} to {STEEPEST:g}.")
        for name, value in (("ambient", self.ambient), ("lamp", self.lamp)):
            if value < 0:
                raise ValueError(f"shift: {name}={value} is a factor; give 0 or more.")

    @property
    def name(self) -> str:
        """What tells frames of this shift from others, in the name of their folder; empty without a change."""
        changed = {key: value for key, value in vars(self).items() if value != getattr(Shift, key)}
        return "_".join(f"{key}{float(value)!r}" for key, value in changed.items())

    def __call__(self, scene: Scene) -> Scene:
        """The scene after the shift; the same object where nothing changes.

        Args:
            scene: as it was drawn.
        """
        if not self.name:
            return scene
        position, axes = scene.camera.position.copy(), scene.camera.axes
        if self.height:
            position[1] = np.clip(position[1] + self.height, HEADROOM, scene.size[1] - HEADROOM)
        right, up, forward = axes
        if self.pitch:
            forward, up = _turned(forward, up, self.pitch)
        if self.roll:
            up, right = _turned(up, right, self.roll)
        return dataclasses.replace(
            scene,
            camera=Camera(position, np.stack([right, up, forward])),
            ambient=scene.ambient * self.ambient,
            power=scene.power * self.lamp,
        )


def _turned(first: Vector, second: Vector, degrees: float) -> tuple[Vector, Vector]:
    """Two of a camera's axes, turned in their plane: the first moves towards the second."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return cosine * first + sine * second, cosine * second - sine * first
