"""Small rooms with experts of twenty tasks, for studies of many."""

from mmengine.config import read_base

with read_base():
    from .studies_bfloat16 import *

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
