"""Worse experts: fewer epochs, fewer frames, one broken expert of three.

python tools/study.py worse_experts
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_bfloat16 import *

study = dict(type="worse_experts", seeds=3, cost="36 runs of about 35 s on one core, and four sets of experts per seed")
