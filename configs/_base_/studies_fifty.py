"""Small rooms with experts of fifty tasks: the twenty, the five other dense ones, and twenty-five one-class variants.

A variant asks for one class of another task and is no task of its own. The four whose class covers the fewest pixels
are left out. The first twenty are those of the pilot, so their experts are the same.
"""

from mmengine.config import read_base

with read_base():
    from .studies_twenty import *

_dense = ["inverse_depth", "depth_order", "semantic_edges", "boundary_distance", "layout_depth"]
_classes = {
    "segmentation": "wall floor ceiling bed sofa chair table furniture window books objects tv",
    "orientation": "up down viewer",
    "material": "plain wood noise stripes checker tiles planks",
    "layout": "floor ceiling far_wall",
}
_variants = [f"{_source}_{_name}" for _source, _names in _classes.items() for _name in _names.split()]
tasks.update({name: dict(type=name) for name in [*_dense, *_variants]})
