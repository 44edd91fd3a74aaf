"""The same on a small vision transformer, with an FCN head of mmsegmentation.

    python tools/train.py configs/rooms_vit_symerge.py
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_vit_small import *
    from .merge.symerge import *
