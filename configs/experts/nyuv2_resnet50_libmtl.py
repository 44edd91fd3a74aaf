"""ResNet-50 dilated to stride 8 with DeepLab heads on NYUv2: LibMTL's recipe (200 epochs of batch 8, no augmentation).

Experts that LibMTL trained itself are imported by tools/import_expert.py and fit this config.
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
    name="nyuv2_resnet50_libmtl",
    recipe=dict(
        optimizer="Adam",
        epochs=200,
        batch_size=8,
        lr=1e-4,
        weight_decay=1e-5,
        schedule="step",
        step_size=100,
        gamma=0.5,
        num_workers=2,
    ),
)
