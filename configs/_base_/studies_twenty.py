"""Small rooms with experts of twenty tasks, for studies of many. They are trained in bfloat16."""

from mmengine.config import read_base

with read_base():
    from .studies import *

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
experts["recipe"].update(amp=True)
