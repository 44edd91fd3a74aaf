"""Each lever of the adaptation alone, on NYUv2 with EfficientNet-Lite0: on the frames of the pool, and outside it.

    python tools/compare.py configs/ablation/nyuv2_efficientnet_lite0_levers.py --seeds 3

The pool and the test frames are the first 500 of NYUv2's test images; the other 154 stay outside. Its compare.md is the
table. Row 'symerge' is the config's own adaptation.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.levers import *
    from ..experts.nyuv2_efficientnet_lite0 import *
    from ..merge.symerge import *

data["outside"] = dict(data["test"], frames=(500, 654))
data["test"]["frames"] = data["unlabelled"]["frames"] = (0, 500)
_camera = dict(fx=518.857901, fy=519.469611, cx=324.582449, cy=252.736166, size=(480, 640))
_was = baselines["variants"]["as it was"]
_more = [data["unlabelled"], dict(data["train"], augment=None)]  # its images, without labels
baselines["variants"].update(
    {
        "cross-task teacher": dict(_was, teacher=dict(type="cross_task", **_camera)),
        "more images": dict(_was, unlabelled=_more),
        "symerge, more images": dict(method="symerge", unlabelled=_more),
    }
)
baselines["methods"] += ["cross-task teacher", "more images", "symerge, more images"]
