"""Sensitivity to learning rates, rounds, initial coefficient and clamp, one at a time.

python tools/study.py sensitivity
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_bfloat16 import *

study = dict(type="sensitivity", seeds=3, cost="51 runs of about 45 s on one core")
quick = {**quick, "study.near": dict(layer_lr=[1e-3], rounds=[6]), "study.far": dict()}
