"""EfficientNet-Lite0 experts on NYUv2 at 144x192: a convolutional network with BatchNorm in every block.

The base is timm's tf_efficientnet_lite0.in1k. Without a network, give its file:
    symerge train nyuv2_efficientnet_lite0_symerge --cfg-options base.checkpoint=tf_efficientnet_lite0.safetensors
"""

from mmengine.config import read_base

from symerge_dense.datasets import Augment
from symerge_dense.models.heads import MultiScale

with read_base():
    from .._base_.nyuv2 import *

_size = (144, 192)
data["train"].update(size=_size, augment=dict(type=Augment, flip=0.5, color=0.2))
data["unlabelled"].update(size=_size)
data["test"].update(size=_size)
backbone = dict(name="tf_efficientnet_lite0.in1k")
head = dict(type=MultiScale, width=128)
preprocessing = dict(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
base = dict(pretrained=True)
experts = dict(
    name="nyuv2_efficientnet_lite0",
    recipe=dict(
        epochs=8, batch_size=8, lr=1e-3, backbone_lr_scale=0.5, layer_decay=0.9, weight_decay=0.05, warmup_iters=20
    ),
)
