"""NYUv2 with the published architecture and LibMTL's recipe for the experts: ResNet-50, DeepLab heads, 288x384.

    python tools/train.py configs/nyuv2_libmtl_symerge.py

It ends with one table row per merge, measured as LibMTL and FusionBench do.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_resnet50_libmtl import *
    from .merge.symerge import *

evaluation = dict(protocol="libmtl")
