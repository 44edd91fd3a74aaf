"""Claim 2: one layer of task B, retrained on the encoder of task A, for all ordered pairs.

python tools/study.py cross_task_layer
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

from symerge_dense.tasks import Albedo, Edges

tasks.update(edges=dict(type=Edges), albedo=dict(type=Albedo))
adaptation["rounds"] = 100
study = dict(type="cross_task_layer", seeds=3, cost="60 runs of about 30 s on one core, and two experts more per seed")
