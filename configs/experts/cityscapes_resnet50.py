"""ResNet-50 dilated to stride 8 with DeepLab heads on Cityscapes: the architecture of the NYUv2 configs.

The base is torchvision's ImageNet ResNet-50. Without a network, give its file by base.checkpoint=resnet50-19c8e357.pth.
The recipe is the one of LibMTL for NYUv2, with a larger batch for the smaller images.
"""

from mmengine.config import read_base

from symerge_dense.models.heads import DeepLab

with read_base():
    from .._base_.cityscapes import *

backbone = dict(name="resnet50.tv_in1k", output_stride=8)
head = dict(type=DeepLab)
align_corners = True
preprocessing = dict(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))  # [0, 1], as the published code feeds it
base = dict(pretrained=True)
experts = dict(
    name="cityscapes_resnet50",
    recipe=dict(
        optimizer="Adam",
        epochs=200,
        batch_size=32,
        lr=1e-4,
        weight_decay=1e-5,
        schedule="step",
        step_size=100,
        gamma=0.5,
        num_workers=4,
    ),
)
