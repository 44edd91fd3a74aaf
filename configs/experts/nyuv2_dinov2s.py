"""DINOv2 ViT-S/14 experts on NYUv2 at 140x196.

The base is timm's vit_small_patch14_dinov2.lvd142m. Without a network, give its file:
    python tools/train.py configs/nyuv2_dinov2s_symerge.py --cfg-options base.checkpoint=dinov2_vits14.safetensors
The recipe is this package's, for few frames: the backbone's first blocks hardly move, so that the experts stay near
their base and merge well.
"""

from mmengine.config import read_base

from symerge_dense.datasets import Augment
from symerge_dense.models.heads import MultiScale

with read_base():
    from .._base_.nyuv2 import *

_size = (140, 196)
data["train"].update(size=_size, augment=dict(type=Augment, flip=0.5, color=0.2))
data["unlabelled"].update(size=_size)
data["test"].update(size=_size)
backbone = dict(name="vit_small_patch14_dinov2.lvd142m", img_size=_size)
head = dict(type=MultiScale, width=128)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(pretrained=True)
experts = dict(
    name="nyuv2_dinov2s",
    recipe=dict(
        epochs=5,
        batch_size=4,
        lr=1e-3,
        backbone_lr_scale=0.05,
        layer_decay=0.8,
        weight_decay=0.05,
        warmup_iters=30,
        amp=True,
    ),
)
