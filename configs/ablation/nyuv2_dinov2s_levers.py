"""Each lever of the adaptation alone, on NYUv2 with DINOv2 ViT-S/14: on the frames of the pool, and outside it.

    python tools/compare.py configs/ablation/nyuv2_dinov2s_levers.py --seeds 3

The pool and the test frames are the first 500 of NYUv2's test images; the other 154 stay outside. Its compare.md is the
table. Row 'symerge' is the config's own adaptation.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.nyuv2_levers import *
    from ..experts.nyuv2_dinov2s import *
    from ..merge.symerge import *

data["outside"] = dict(data["test"], frames=_outside)
data["test"]["frames"] = data["unlabelled"]["frames"] = _pool
for _row in ("more images", "symerge, more images"):  # those of the training frames, without labels
    baselines["variants"][_row]["unlabelled"] = [data["unlabelled"], dict(data["train"], augment=None)]
for _count in (4, 16):
    _few = dict(data["unlabelled"], frames=(0, _count))
    baselines["variants"][f"symerge, {_count} images"]["unlabelled"] = _few
