"""Open question 1: convolutional networks and transformers, trained from nothing by one recipe.

python tools/study.py architectures
"""

from mmengine.config import read_base

with read_base():
    from .._base_.studies import *

study = dict(
    type="architectures",
    seeds=3,
    cost="54 runs of about 40 s on one core, and six sets of experts per seed, about 10 minutes each",
)
quick = {
    **quick,
    "study.architectures": dict(
        resnet18=dict(name="resnet18"),
        convnext_atto=dict(name="convnext_atto"),
        vit_tiny=dict(name="vit_tiny_patch16_224", img_size=(64, 96), patch_size=8, depth=4),
    ),
}
