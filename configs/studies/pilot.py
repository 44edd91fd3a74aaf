"""Claim 1, the pilot: the head of task B on the encoder of task A, against the merge of A and B, over twenty tasks.

python tools/study.py pilot
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies_twenty import *

data["test"]["count"] = 100
adaptation["recalibration_images"] = 64
study = dict(type="pilot", seeds=3, cost="630 runs of about 5 s on one core, and 20 experts per seed")
quick = {**quick, "study.tasks": ["segmentation", "depth", "normals"]}
