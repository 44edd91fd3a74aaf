"""Merge twenty ResNet-18 experts on small rendered rooms, everything from nothing.

python tools/train.py configs/rooms_twenty_symerge.py
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_twenty import *
    from .merge.symerge import *

adaptation["rounds"] = 200
