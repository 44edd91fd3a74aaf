"""Claim 10, Proposition 1: cross-task linearity per level, and both sides of the bound.

python tools/study.py linearity
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(type="linearity", seeds=3, cost="3 runs of about 30 s on one core")
