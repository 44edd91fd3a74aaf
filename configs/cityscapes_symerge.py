"""Cityscapes in MTAN's layout, 7 classes and inverse depth at 128x256: ResNet-50 dilated to stride 8, DeepLab heads.

    python tools/train.py configs/cityscapes_symerge.py

It ends with one table row per merge and the metrics of two tasks in its columns.
"""

from mmengine.config import read_base

with read_base():
    from .experts.cityscapes_resnet50 import *
    from .merge.symerge import *
