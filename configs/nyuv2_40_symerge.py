"""NYUv2 with its 40 classes: ResNet-50 dilated to stride 8, DeepLab heads, 288x384.

    python tools/train.py configs/nyuv2_40_symerge.py

It ends with one table row per merge. The arrays of MTAN have 13 classes; those of 40 are made by
`python tools/prepare_data.py nyuv2 --from mat SOURCE --classes 40 --out data/nyuv2_40` (also from nyud_mt and nyudv2).
"""

from mmengine.config import read_base

with read_base():
    from .experts.nyuv2_resnet50 import *
    from .merge.symerge import *

tasks["segmentation"].update(classes=40)
for _split in data.values():
    _split.update(root="data/nyuv2_40")
experts.update(name="nyuv2_40_resnet50")
