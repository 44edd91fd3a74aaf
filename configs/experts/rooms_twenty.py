"""Twenty ResNet-18 experts on small rendered rooms, one per dense task. The base learns albedo and edges from scratch.

python tools/train.py configs/rooms_twenty_symerge.py
"""

from mmengine.config import read_base

from symerge_dense.models.heads import MultiScale
from symerge_dense.tasks import (
    Albedo,
    BoundaryDistance,
    CentreOffset,
    Curvature,
    Depth,
    DepthOrder,
    Edges,
    Foreground,
    Height,
    InverseDepth,
    Layout,
    LayoutDepth,
    LightDirection,
    LightVisibility,
    Material,
    Normals,
    OcclusionEdges,
    Orientation,
    Segmentation,
    SemanticEdges,
    Shading,
    VanishingDirection,
)

with read_base():
    from .._base_.rooms import *

tasks = dict(
    segmentation=dict(type=Segmentation),
    depth=dict(type=Depth),
    normals=dict(type=Normals),
    inverse_depth=dict(type=InverseDepth),
    depth_order=dict(type=DepthOrder),
    semantic_edges=dict(type=SemanticEdges),
    occlusion_edges=dict(type=OcclusionEdges),
    boundary_distance=dict(type=BoundaryDistance),
    shading=dict(type=Shading),
    light_visibility=dict(type=LightVisibility),
    light_direction=dict(type=LightDirection),
    orientation=dict(type=Orientation),
    curvature=dict(type=Curvature),
    material=dict(type=Material),
    height=dict(type=Height),
    layout=dict(type=Layout),
    layout_depth=dict(type=LayoutDepth),
    foreground=dict(type=Foreground),
    centre_offset=dict(type=CentreOffset),
    vanishing_direction=dict(type=VanishingDirection),
)
for _split in data.values():
    _split["size"] = (64, 64)
backbone = dict(name="resnet18")
head = dict(type=MultiScale, width=32)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(
    train=dict(
        tasks=dict(albedo=dict(type=Albedo), edges=dict(type=Edges)),
        recipe=dict(epochs=10, batch_size=16, lr=1e-3, weight_decay=1e-4),
    )
)
experts = dict(
    name="rooms_twenty", recipe=dict(epochs=6, batch_size=16, lr=1e-3, backbone_lr_scale=0.25, weight_decay=1e-4)
)
