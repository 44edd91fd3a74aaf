"""Claim 6: the adapted layers on the encoders of other merging methods.

python tools/study.py transfer
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(type="transfer", seeds=3, cost="24 runs of about 40 s on one core")
quick = {**quick, "study.methods": ["average", "ties"]}
