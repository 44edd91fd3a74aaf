"""NYUv2 on a small budget with a convolutional network: EfficientNet-Lite0 at 144x192.

    python tools/train.py configs/nyuv2_efficientnet_lite0_symerge.py

It ends with one table row per merge and the metrics of three tasks in its columns.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_efficientnet_lite0 import *
    from .merge.symerge import *
