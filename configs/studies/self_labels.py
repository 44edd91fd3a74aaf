"""Claim 4: expert labels against entropy, over learning rates, rounds and sets of tasks.

python tools/study.py self_labels
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_bfloat16 import *

from symerge_dense.tasks import Edges

tasks["edges"] = dict(type=Edges)
study = dict(
    type="self_labels", seeds=3, cost="114 runs of about 50 s on one core: learning rates, rounds, two task sets"
)
quick = {
    **quick,
    "study.tasks": ["segmentation", "edges"],
    "study.task_sets": [["segmentation", "edges"]],
    "study.factors": [1.0, 10.0],
    "study.rounds": [6, 12],
}
