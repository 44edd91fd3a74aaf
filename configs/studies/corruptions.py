"""Claim 8: image corruptions by severity; adapted on corrupted images, tested on corrupted images.

python tools/study.py corruptions
"""

from mmengine.config import read_base

from symerge_dense.datasets import Corrupted

with read_base():
    from .._base_.studies_bfloat16 import *

data["unlabelled"] = dict(type=Corrupted, dataset=data["unlabelled"], corruption="none", severity=1)
data["test"] = dict(type=Corrupted, dataset=data["test"], corruption="none", severity=1, seed=1)
study = dict(type="corruptions", seeds=3, cost="228 runs of about 20 s on one core")
_counts = {"data.unlabelled.dataset.count": 32, "data.test.dataset.count": 32}
quick = {
    **{key: value for key, value in quick.items() if key not in ("data.unlabelled.count", "data.test.count")},
    **_counts,
    "study.corruptions": ["noise"],
    "study.severities": [3],
}
