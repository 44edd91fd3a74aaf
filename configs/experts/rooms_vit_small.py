"""Experts on a small vision transformer, on rendered rooms: its last features into an FCN head of mmsegmentation."""

from mmengine.config import read_base

from symerge_dense.models.heads import MMSegHead
from symerge_dense.tasks import Albedo, Edges

with read_base():
    from .._base_.rooms import *

backbone = dict(name="vit_tiny_patch16_224", img_size=(96, 128), patch_size=8, depth=8)
head = dict(type=MMSegHead, decode_head="FCNHead", num_convs=1, width=96)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(
    train=dict(
        tasks=dict(albedo=dict(type=Albedo), edges=dict(type=Edges)),
        recipe=dict(epochs=10, batch_size=16, lr=5e-4, weight_decay=0.05),
    )
)
experts = dict(name="rooms_vit_small", recipe=dict(epochs=10, batch_size=16, lr=5e-4, weight_decay=0.05))
