"""NYUv2 with DINOv2 ViT-B/14 and linear heads, the network of SIMO (arXiv 2504.11268), at 280x378.

    python tools/train.py configs/nyuv2_dinov2b_symerge.py

It ends with one table row per merge. A linear head has one layer only, so that is the one that adapts.
SIMO splits the 654 test images in two (400 and 254): its raw numbers are not comparable with these, Delta_m is roughly.
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_dinov2b import *
    from .merge.symerge import *

adaptation.update(layer="final")
