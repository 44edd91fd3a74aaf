"""The rows of an ablation on NYUv2: those of ``levers.py``, a teacher that knows the camera, more images and fewer.

The pool and the test frames are the first 500 of NYUv2's test images; the other 154 stay outside. An ablation gives its
data these frames, and the rows of other images theirs, which depend on the size.
"""

from mmengine.config import read_base

with read_base():
    from .levers import *

_pool, _outside = (0, 500), (500, 654)
_camera = dict(fx=518.857901, fy=519.469611, cx=324.582449, cy=252.736166, size=(480, 640))
_was = baselines["variants"]["as it was"]
baselines["variants"].update(
    {
        "cross-task teacher": dict(_was, teacher=dict(type="cross_task", **_camera)),
        "more images": dict(_was),
        "symerge, more images": dict(method="symerge"),
        "symerge, 16 images": dict(method="symerge"),
        "symerge, 4 images": dict(method="symerge"),
    }
)
baselines["methods"] += ["cross-task teacher", "more images", "symerge, more images"]
baselines["methods"] += ["symerge, 16 images", "symerge, 4 images"]
