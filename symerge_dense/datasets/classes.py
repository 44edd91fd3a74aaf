"""Class names that data sets share."""

from __future__ import annotations

NYU13 = ("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
         "window")
"""The 13 indoor classes of NYUv2 (class13Mapping.mat), in label order."""
