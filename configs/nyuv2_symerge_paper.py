"""NYUv2 with the published architecture and the adaptation settings of SyMerge's public code.

    python tools/train.py configs/nyuv2_symerge_paper.py

It ends with the same table and files as configs/nyuv2_symerge.py, from the same experts.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_resnet50 import *
    from .merge.paper import *
