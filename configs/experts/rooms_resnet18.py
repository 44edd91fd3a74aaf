"""ResNet-18 experts on rendered rooms. The base learns albedo and edges from scratch: no download is needed.

python tools/train.py configs/rooms_symerge.py
"""

from mmengine.config import read_base

from symerge_dense.models.heads import MultiScale
from symerge_dense.tasks import Albedo, Edges

with read_base():
    from .._base_.rooms import *

backbone = dict(name="resnet18")
head = dict(type=MultiScale, width=64)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(
    train=dict(
        tasks=dict(albedo=dict(type=Albedo), edges=dict(type=Edges)),
        recipe=dict(epochs=15, batch_size=16, lr=1e-3, weight_decay=1e-4),
    )
)
experts = dict(
    name="rooms_resnet18", recipe=dict(epochs=10, batch_size=16, lr=1e-3, backbone_lr_scale=0.25, weight_decay=1e-4)
)
