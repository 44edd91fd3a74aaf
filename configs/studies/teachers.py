"""Teachers: experts, the average of the merged model, both, each other, and a model of another method.

python tools/study.py teachers
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(type="teachers", seeds=3, cost="15 runs of about 60 s on one core, 3 more of distillation")
quick = {**quick, "study.teachers": {"experts and average": "mix"}}
