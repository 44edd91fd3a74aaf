"""How few unlabelled images suffice: 1 to 1000.

python tools/study.py unlabelled_images
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(type="unlabelled_images", seeds=3, cost="21 runs of about 60 s on one core")
quick = {**quick, "study.counts": [1, 4, 32], "study.few": 4, "study.enough": 32}
