"""Class names that data sets share, in label order; labels count from 0."""

from __future__ import annotations

NYU13 = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
"""The 13 indoor classes of NYUv2 (class13Mapping.mat)."""

NYU40 = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "night stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "other structure",
    "other furniture",
    "other prop",
)
"""The 40 indoor classes of NYUv2 (classMapping40.mat, Gupta et al., CVPR 2013)."""

NYU40_TO_13 = (
    11,
    4,
    5,
    0,
    3,
    8,
    9,
    11,
    12,
    5,
    7,
    5,
    12,
    9,
    5,
    12,
    5,
    6,
    6,
    4,
    6,
    2,
    1,
    5,
    10,
    6,
    6,
    6,
    6,
    6,
    6,
    5,
    6,
    6,
    6,
    6,
    6,
    6,
    5,
    6,
)
"""Entry i is the label in ``NYU13`` of label i in ``NYU40`` (``labels13`` of class13Mapping.mat, less 1)."""

CITYSCAPES7 = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""The 7 categories of Cityscapes (Cordts et al., CVPR 2016)."""

CITYSCAPES19 = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""The 19 classes that Cityscapes evaluates, in the order of its train ids."""

NAMES_BY_COUNT = {len(names): names for names in (NYU13, NYU40, CITYSCAPES7, CITYSCAPES19)}
"""Class names by number of classes; no two known lists have the same length."""

ORIENTATIONS = ("up", "down", "left", "right", "viewer", "slanted")
"""Where a surface faces."""

ROOM_FACES = ("left wall", "right wall", "floor", "ceiling", "near wall", "far wall")
"""The six faces of an empty room: x=0, x=W, y=0, y=H, z=0, z=L."""
