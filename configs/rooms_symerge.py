"""Merge three ResNet-18 experts on rendered rooms into one model: the default, everything from nothing.

    python tools/train.py configs/rooms_symerge.py

It ends with the table in README.md: Delta_m +2.17 % for SyMerge, -18.59 % for the best task arithmetic.
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_resnet18 import *
    from .merge.symerge import *
