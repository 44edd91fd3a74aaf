"""Claim 6 in the paper's setting: one coefficient per tensor, at the rate that suits it.

python tools/study.py transfer_per_tensor
"""

from mmengine.config import read_base

with read_base():
    from .transfer import *

study["type"] = "transfer_per_tensor"
adaptation.update(granularity="tensor", coefficient_lr=3e-2)
