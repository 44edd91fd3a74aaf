"""Claim 3: joint > coefficients only, layer only > nothing, and the control without task vectors.

python tools/study.py parts
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(
    type="parts", seeds=3, cost="21 runs of about 20 s on one core, and the experts of 3 seeds, 10 minutes each"
)
