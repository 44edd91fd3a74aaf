"""Harder views for the student: any pipeline of albumentations; the labels stay those of the clean view.

What changes pixels changes the image alone. What moves them moves the labels along: the pipeline also moves a map that
holds every pixel's place in the frame, and each label is looked up at the places of that map, at its own resolution and
by its task's rule. From the same map follow mirror, zoom and rotation, which change the values of some tasks. A strong
view for the student beside a clean one for the teacher: FixMatch, https://arxiv.org/abs/2001.07685.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from symerge_dense.datasets.resize import albumentations_geometry, masked
from symerge_dense.datasets.transforms import renormalize
from symerge_dense.registry import did_you_mean
from symerge_dense.tasks.base import MOVES

Array = NDArray[Any]
STREAM = 1  # of random numbers: another one than the joint augmentation's
PROBES = 16  # draws of each transform, to see what it does
INSIDE = 0.999  # share of a label's pixel that must come from inside the frame
LEAST = 0.05  # share of the view that must come from inside the frame
NEAR = 1.0  # pixels: a movement that is nowhere farther off than that is taken for its simpler form


class Movement(NamedTuple):
    """How a map of places moves the frame.

    Args:
        mirrored: whether left and right are exchanged.
        zoom: factor by which things look larger, the geometric mean over both axes.
        angle: by which things are turned counter-clockwise, in radians, before they are mirrored.
        moves: all that it is, out of ``MOVES``; or 'nothing', where hardly any pixel of the frame is left.
    """

    mirrored: bool
    zoom: float
    angle: float
    moves: frozenset[str]


class StrongViews:
    """A pipeline of albumentations over an image and its labels.

    Args:
        specs: one dict per transform, such as ``dict(type='ColorJitter', brightness=0.4, p=0.8)``: the name of a class
            of albumentations and its arguments; ``OneOf`` and its like have ``transforms``, a list of such dicts. A
            size that a transform needs is the frame's where it is left out, and so is the ratio of RandomResizedCrop.
        frame: (H, W) of the images.

    Raises:
        ValueError: an unknown class, or an argument that it does not take.
    """

    def __init__(self, specs: Sequence[Mapping[str, Any]], frame: tuple[int, int]) -> None:
        albumentations_geometry()
        import albumentations

        if not isinstance(specs, list | tuple) or not specs:
            raise ValueError(
                f"strong={specs!r}; give a list of transforms, such as [dict(type='ColorJitter')], or None."
            )
        self.frame = frame
        self.pipeline = albumentations.Compose([_transform(spec, frame) for spec in specs])
        self.pipeline.set_mask_interpolation(cv2.INTER_LINEAR)
        self.moving = [one for one in _leaves(self.pipeline) if isinstance(one, albumentations.DualTransform)]

    def check(self, rules: Mapping[str, Any]) -> None:
        """Try the pipeline on noise.

        Args:
            rules: {task: DenseTask}, whose labels move along.

        Raises:
            ValueError: a transform cannot work on an image alone, another size comes out, or a task has no rule for
                what a transform does to its values.
        """
        noise = np.random.default_rng(0).integers(0, 256, (*self.frame, 3)).astype(np.uint8)
        for one in self.moving:
            found = {move for probe in range(PROBES) for move in _movement(self._apply(one, noise, (probe,))[1]).moves}
            for task, rule in rules.items():
                self._check_task(type(one).__name__, task, rule, found)
        for probe in range(PROBES):
            image, places = self._apply(self.pipeline, noise, (probe,))
            if image.shape != noise.shape or image.dtype != noise.dtype:
                raise ValueError(
                    f"strong makes {image.dtype} {image.shape} of an image {noise.dtype} {noise.shape}; a view must "
                    "keep size and type: end with dict(type='Resize'), and leave out Normalize and ToTensorV2."
                )
            for task, rule in rules.items():
                self._check_task("the pipeline", task, rule, _movement(places).moves)

    def __call__(
        self, arrays: Mapping[str, Array], rules: Mapping[str, Any], key: tuple[int, ...]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """A view of an image and of the labels of it.

        Args:
            arrays: ``image`` (H,W,3) in 0..255 and labels float32 (h,w,C), by task; others, such as the image that
                teachers see, are moved and not changed.
            rules: {task: DenseTask}.
            key: seed, draw and index: all that the view depends on.

        Returns:
            The arrays in the view, and for each label where it counts, bool (h,w): inside the frame, and nowhere in a
            rare view whose movement its task has no rule for. The latter is empty for a pipeline that moves no pixel.
        """
        pixels = np.asarray(arrays["image"]).round().clip(0, 255).astype(np.uint8)
        image, places = self._apply(self.pipeline, np.ascontiguousarray(pixels), key)
        labels = {name: array for name, array in arrays.items() if name != "image"}
        view: dict[str, Array] = {"image": image.astype(np.float32)}
        if not self.moving:
            return view | labels, {}
        valid = {name: np.ones(label.shape[:2], bool) for name, label in labels.items() if name in rules}
        if np.array_equal(places, _places(self.frame)):
            return view | labels, valid
        motion = _movement(places)
        for name, label in labels.items():
            rule, size = rules.get(name), label.shape[:2]
            if rule is not None and not motion.moves <= rule.moves:
                valid[name] = np.zeros(size, bool)
                continue
            if rule is not None:
                valid[name] = cv2.resize(places[..., 2], size[::-1], interpolation=cv2.INTER_AREA) > INSIDE
            labels[name] = _moved(label, rule, cv2.resize(places, size[::-1], interpolation=cv2.INTER_LINEAR), motion)
        return view | labels, valid

    def _apply(self, transform: Any, image: Array, key: tuple[int, ...]) -> tuple[Array, Array]:
        """Image and map of places under one draw; every transform is drawn from one stream."""
        numbers = np.random.default_rng((*key, STREAM))
        transform.set_random_state(numbers, random.Random(int(numbers.integers(2**62))))
        force = {} if transform is self.pipeline else {"force_apply": True}
        try:
            made = transform(image=image, mask=_places(self.frame), **force)
        except Exception as error:  # foreign code can fail in any way
            name = "the pipeline" if transform is self.pipeline else type(transform).__name__
            found = f"{type(error).__name__}: {error}"
            raise ValueError(f"strong: {name} cannot be applied to an image {image.shape} alone ({found}).") from error
        return made["image"], made["mask"]

    @staticmethod
    def _check_task(who: str, task: str, rule: Any, moves: Any) -> None:
        if unknown := [move for move in MOVES if move in moves and move not in rule.moves]:
            known = ", ".join(move for move in MOVES if move in rule.moves)
            raise ValueError(
                f"strong: {who} moves pixels by {' and '.join(unknown)}, and task {task} has no rule for what that "
                f"does to its values; it has for {known}. Leave the transform out, narrow its arguments, or declare it "
                "in the task's `moves`."
            )


def _transform(spec: Any, frame: tuple[int, int]) -> Any:
    """A transform of albumentations from its spec."""
    import albumentations

    if not isinstance(spec, Mapping) or not isinstance(spec.get("type"), str):
        raise ValueError(f"strong has {spec!r}; give dicts whose type is the name of a class of albumentations.")
    kinds = (albumentations.BasicTransform, albumentations.BaseCompose)
    known = {
        name: kind for name, kind in vars(albumentations).items() if inspect.isclass(kind) and issubclass(kind, kinds)
    }
    arguments = {name: value for name, value in spec.items() if name != "type"}
    if (name := spec["type"]) not in known:
        raise ValueError(f"strong: {did_you_mean(name, known, 'transform of albumentations')}")
    parameters = inspect.signature(known[name]).parameters
    given = {"size": frame, "height": frame[0], "width": frame[1]}
    needed = {
        key: value for key, value in given.items() if key in parameters and parameters[key].default is inspect._empty
    }
    if name == "RandomResizedCrop":
        needed["ratio"] = (frame[1] / frame[0],) * 2
    if isinstance(arguments.get("transforms"), list | tuple):
        arguments["transforms"] = [_transform(one, frame) for one in arguments["transforms"]]
    try:
        with warnings.catch_warnings():
            # albumentations only warns of an argument that it ignores
            warnings.filterwarnings("error", message=".*not valid for transform")
            return known[name](**{**needed, **arguments})
    except (TypeError, ValueError, UserWarning) as error:
        raise ValueError(f"strong: {name}: {' '.join(str(error).split())}") from error


def _leaves(transform: Any) -> Iterator[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None:
        yield transform
    for one in inner or ():
        yield from _leaves(one)


def _places(size: tuple[int, int]) -> Array:
    """Row and column of each pixel's centre as fractions of the frame, and 1 for 'inside', float32 (H,W,3)."""
    rows, columns = (((np.arange(side) + 0.5) / side).astype(np.float32) for side in size)
    return np.stack([*np.meshgrid(rows, columns, indexing="ij"), np.ones(size, np.float32)], axis=-1)


def _movement(places: Array) -> Movement:
    """What a moved map of places shows: the best affine map through its pixels, and how far they are from it."""
    size = np.array(places.shape[:2])
    part = slice(2, -2, max(1, int(size.min()) // 32))  # enough pixels, and none at the border, where views are clamped
    shown, seen = _places((size[0], size[1]))[part, part], places[part, part]
    inside = seen[..., 2] > INSIDE
    if inside.mean() < LEAST:
        return Movement(False, 1.0, 0.0, frozenset({"nothing"}))
    out, source = shown[inside][:, :2] * size, seen[inside][:, :2] * size
    design = np.concatenate([out, np.ones((len(out), 1))], axis=1)
    solution = np.linalg.lstsq(design, source, rcond=None)[0]
    matrix, rest = solution[:2].T, np.abs(design @ solution - source).max()  # from the view's pixels to the source's
    mirrored = bool(np.linalg.det(matrix) < 0)
    matrix = matrix @ np.diag([1.0, -1.0]) if mirrored else matrix
    scale = float(np.sqrt(max(np.linalg.det(matrix), 1e-12)))
    angle = float(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = size / 2  # farthest from the centre
    sheared = max(abs(matrix[0, 1]) * reach[1], abs(matrix[1, 0]) * reach[0]) > NEAR
    turned, bent = (bool((np.abs(off) @ reach > NEAR).any()) for off in (turn - np.eye(2), matrix - scale * turn))
    found = {
        "mirror": mirrored,
        "zoom": abs(scale - 1) * reach.max() > NEAR / 4,
        "rotation": turned,
        "stretch": bent and not sheared,
        "warp": (bent and (sheared or turned)) or rest > NEAR,
    }
    moves = frozenset(move for move, moved in found.items() if moved)
    return Movement(mirrored, 1 / scale, -angle if turned else 0.0, moves)


def _moved(label: Array, rule: Any, places: Array, motion: Movement) -> Array:
    """A label (h,w,C) at the places (h,w,3) of a view, with the values that it has there."""
    grid = torch.from_numpy(np.ascontiguousarray(places[..., 1::-1] * 2 - 1))[None]

    def look_up(values: Array, mode: str) -> Array:
        layers = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))[None]
        found = F.grid_sample(layers, grid, mode=mode, padding_mode="border", align_corners=False)
        return found[0].permute(1, 2, 0).numpy()

    if rule is None:
        return look_up(label, "bilinear")
    if rule.interpolation == "nearest":
        result = look_up(label, "nearest")
    else:
        result = renormalize(rule, masked(label, rule.invalid_value, lambda values: look_up(values, "bilinear")))
    if "zoom" in motion.moves:
        result = rule.zoom(result, motion.zoom)
    if "rotation" in motion.moves:
        result = rule.rotate(result, motion.angle)
    return np.asarray(rule.flip(result) if motion.mirrored else result, np.float32)
