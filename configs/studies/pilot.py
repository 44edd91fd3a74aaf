"""Claim 1, the pilot: the head of task B on the encoder of task A, against the merge of A and B, over twenty tasks.

python tools/study.py pilot
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

_named = [
    "edges",
    "albedo",
    "shading",
    "occlusion_edges",
    "orientation",
    "height",
    "view_angle",
    "layout",
    "material",
    "curvature",
    "light_visibility",
    "cast_shadow",
    "light_direction",
    "ambient_occlusion",
    "foreground",
    "centre_offset",
    "vanishing_direction",
]
tasks.update({name: dict(type=name) for name in _named})
data["test"]["count"] = 100
adaptation["recalibration_images"] = 64
study = dict(type="pilot", seeds=3, cost="1140 runs of about 10 s on one core, and 20 experts per seed")
quick = {**quick, "study.tasks": ["segmentation", "depth", "normals"]}
