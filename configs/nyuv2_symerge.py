"""NYUv2 with the published architecture: ResNet-50 dilated to stride 8, DeepLab heads, 288x384.

    python tools/train.py configs/nyuv2_symerge.py
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_resnet50 import *
    from .merge.symerge import *
