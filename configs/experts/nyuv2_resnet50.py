"""ResNet-50 dilated to stride 8 with DeepLab heads on NYUv2: the published architecture, FusionBench's recipe.

The base is torchvision's ImageNet ResNet-50. Without a network, give its file:
    python tools/train.py configs/nyuv2_symerge.py --cfg-options base.checkpoint=resnet50-19c8e357.pth
"""

from mmengine.config import read_base

from symerge_dense.models.heads import DeepLab

with read_base():
    from .._base_.nyuv2 import *

backbone = dict(name="resnet50.tv_in1k", output_stride=8)
head = dict(type=DeepLab)
align_corners = True
preprocessing = dict(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))  # [0, 1], as the published code feeds it
base = dict(pretrained=True)
experts = dict(
    name="nyuv2_resnet50",
    recipe=dict(
        optimizer="Adam", epochs=40, batch_size=16, lr=1e-4, schedule="step", step_size=10, gamma=0.5, num_workers=2
    ),
)
