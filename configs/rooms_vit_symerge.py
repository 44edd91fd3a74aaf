"""The same on a small vision transformer, with an FCN head of mmsegmentation.

    python tools/train.py configs/rooms_vit_symerge.py

It ends with the same table and files as configs/rooms_symerge.py, for its own experts.
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_vit_small import *
    from .merge.symerge import *
