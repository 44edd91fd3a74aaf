"""Claim 8 beyond corruptions: another camera, other light; and pools that are foreign or long-tailed.

python tools/study.py shifts
"""

from mmengine.config import read_base

from symerge_dense.datasets import Corrupted, LongTailed

with read_base():
    from .._base_.studies_bfloat16 import *

data["unlabelled"] = dict(
    type=Corrupted,
    dataset=dict(type=LongTailed, dataset=data["unlabelled"], exponent=0.0),
    corruption="none",
    severity=5,
)
study = dict(type="shifts", seeds=3, cost="99 runs of about 40 s on one core, and frames of five shifts to render")
quick = {
    **{key: value for key, value in quick.items() if key != "data.unlabelled.count"},
    "data.unlabelled.dataset.dataset.count": 32,
    "study.shifts": dict(tilted=dict(roll=20.0)),
    "study.pools": {"jigsaw images": {"corruption": "jigsaw"}, "longer tail": {"dataset.exponent": 2.0}},
}
