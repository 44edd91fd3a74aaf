"""Cityscapes in MTAN's layout: 2975 training and 500 test images of 128x256, 7 classes. The pool is the test images."""

from symerge_dense.datasets import Cityscapes
from symerge_dense.tasks import InverseDepth, Segmentation

_root = "data/cityscapes"
tasks = dict(segmentation=dict(type=Segmentation, classes=7), inverse_depth=dict(type=InverseDepth))
data = dict(
    train=dict(type=Cityscapes, root=_root, split="train"),
    unlabelled=dict(type=Cityscapes, root=_root, split="val"),
    test=dict(type=Cityscapes, root=_root, split="val"),
)
