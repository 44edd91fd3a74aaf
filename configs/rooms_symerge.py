"""Merge three ResNet-18 experts on rendered rooms into one model: the default, everything from nothing.

    python tools/train.py configs/rooms_symerge.py

It ends with the table that README.md shows.
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_resnet18 import *
    from .merge.symerge import *
