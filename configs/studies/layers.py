"""Claim 5: which layer of the heads is adapted.

python tools/study.py layers
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(type="layers", seeds=3, cost="24 runs of about 45 s on one core")
quick = {**quick, "study.layers": ["pre_final", "final"], "study.others": []}
