"""Claim 7: three, eight, twenty and fifty tasks, SyMerge and its baselines; seconds and memory of each.

python tools/study.py scaling
python tools/study.py scaling --cfg-options study.counts=[3,8,20]    # without the fifty: a third of the cost
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_fifty import *

data["test"]["count"] = 100
study = dict(
    type="scaling",
    seeds=3,
    cost="72 runs of about 2 min on one core, those of fifty tasks of 4, and 30 experts per seed beside the pilot's "
    "20; 8 GB of memory a process",
)
quick = {**quick, "study.tasks": ["segmentation", "depth", "normals"], "study.counts": [2, 3]}
quick["study.baselines"] = ["task_arithmetic", "ties"]
