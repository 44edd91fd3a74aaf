"""Claim 1, the pilot: the head of task B on the encoder of task A, against the merge of A and B.

python tools/study.py pilot
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

from symerge_dense.tasks import Albedo, Edges, Shading

tasks.update(edges=dict(type=Edges), albedo=dict(type=Albedo), shading=dict(type=Shading))
data["test"]["count"] = 100
adaptation["recalibration_images"] = 64
study = dict(type="pilot", seeds=3, cost="90 runs of about 15 s on one core, and six experts per seed")
