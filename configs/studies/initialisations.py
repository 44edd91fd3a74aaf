"""Claim 9: experts from different first weights, with and without activation matching.

python tools/study.py initialisations
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_bfloat16 import *

study = dict(
    type="initialisations",
    seeds=3,
    cost="48 runs of about 40 s on one core, and two bases and four experts more per seed, about 15 minutes",
)
quick = {**quick, "adaptation.rounds": 6, "baselines.scales": [0.3]}
