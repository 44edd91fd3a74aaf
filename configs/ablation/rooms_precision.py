"""What lower precision costs in quality, and saves in seconds and memory, on rendered rooms.

    python tools/compare.py configs/ablation/rooms_precision.py --seeds 3

Row 'symerge' computes in float32 throughout.
"""

from mmengine.config import read_base

with read_base():
    from ..experts.rooms_resnet18 import *
    from ..merge.symerge import *

baselines = dict(
    methods=["symerge", "symerge, bfloat16", "symerge, bfloat16 task vectors"],
    variants={
        "symerge, bfloat16": dict(method="symerge", amp=True),
        "symerge, bfloat16 task vectors": dict(method="symerge", task_vector_dtype="bfloat16"),
    },
)
