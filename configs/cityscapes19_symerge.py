"""Cityscapes in MTAN's layout, the 19 classes of the benchmark and inverse depth: ResNet-50, DeepLab heads.

    python tools/train.py configs/cityscapes19_symerge.py

It ends with the same table as configs/cityscapes_symerge.py, from experts of its own.
"""

from mmengine.config import read_base

with read_base():
    from .experts.cityscapes_resnet50 import *
    from .merge.symerge import *

tasks["segmentation"].update(classes=19)
experts.update(name="cityscapes19_resnet50")
