"""NYUv2 with the published architecture: ResNet-50 dilated to stride 8, DeepLab heads, 288x384.

    python tools/train.py configs/nyuv2_symerge.py

It ends with one table row per merge; the numbers of the paper give Delta_m -6.7 % for SyMerge.
`--cfg-options evaluation.protocol=libmtl` measures as the published code does; docs/nyuv2.md has it all.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_resnet50 import *
    from .merge.symerge import *
