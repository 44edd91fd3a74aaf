"""DINOv2 ViT-B/14 experts with linear heads on NYUv2 at 280x378: the network of SIMO (arXiv 2504.11268).

The base is timm's vit_base_patch14_dinov2.lvd142m. Without a network, give its file by base.checkpoint=PATH.
The recipe is this package's: AdamW, the backbone a hundred times slower than the heads.
"""

from mmengine.config import read_base

from symerge_dense.datasets import Augment
from symerge_dense.models.heads import Linear

with read_base():
    from .._base_.nyuv2 import *

_size = (280, 378)
data["train"].update(size=_size, augment=dict(type=Augment, flip=0.5))
data["unlabelled"].update(size=_size)
data["test"].update(size=_size)
backbone = dict(name="vit_base_patch14_dinov2.lvd142m", img_size=_size, out_indices=(11,))
head = dict(type=Linear)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(pretrained=True)
experts = dict(
    name="nyuv2_dinov2b",
    recipe=dict(
        epochs=20, batch_size=8, lr=1e-3, backbone_lr_scale=0.01, weight_decay=0.01, warmup_iters=100, num_workers=2
    ),
)
