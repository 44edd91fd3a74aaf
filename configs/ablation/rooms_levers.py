"""Each lever of the adaptation alone, on rendered rooms: on the test frames, and on those of the pool.

    python tools/compare.py configs/ablation/rooms_levers.py --seeds 3

Its compare.md is the table. Row 'symerge' is the config's own adaptation.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.levers import *
    from ..experts.rooms_resnet18 import *
    from ..merge.symerge import *

data["pool"] = dict(data["unlabelled"])  # the pool's frames with labels: measured, never learned from
evaluation = dict(also=["pool"])
_was = baselines["variants"]["as it was"]
_more = dict(data["unlabelled"], count=1000)
baselines["variants"].update(
    {
        "cross-task teacher": dict(_was, teacher=dict(type="cross_task", fov=60)),
        "more images": dict(_was, unlabelled=_more),
        "symerge, more images": dict(method="symerge", unlabelled=_more),
    }
)
baselines["methods"] += ["cross-task teacher", "more images", "symerge, more images"]
