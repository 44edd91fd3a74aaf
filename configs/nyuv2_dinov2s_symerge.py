"""NYUv2 on a small budget: DINOv2 ViT-S/14 at 140x196.

    python tools/train.py configs/nyuv2_dinov2s_symerge.py

It ends with one table row per merge and the metrics of three tasks in its columns.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_dinov2s import *
    from .merge.symerge import *
