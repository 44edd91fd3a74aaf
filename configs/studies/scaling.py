"""Claim 7: three, eight and twenty tasks, SyMerge and its baselines.

python tools/study.py scaling
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_twenty import *

data["test"]["count"] = 100
study = dict(type="scaling", seeds=3, cost="54 runs of about 90 s on one core, and the pilot's 20 experts per seed")
quick = {**quick, "study.tasks": ["segmentation", "depth", "normals"], "study.counts": [2, 3]}
quick["study.baselines"] = ["task_arithmetic", "ties"]
