"""The rooms with the adaptation settings of SyMerge's public code.

    python tools/train.py configs/rooms_symerge_paper.py

It ends with the same table and files as configs/rooms_symerge.py, from the same experts.
"""

from mmengine.config import read_base

with read_base():
    from .experts.rooms_resnet18 import *
    from .merge.paper import *
