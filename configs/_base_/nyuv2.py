"""NYUv2 in MTAN's layout: 795 training and 654 test images of 288x384. The pool is the test images, without labels."""

from symerge_dense.datasets.nyuv2 import NYUv2
from symerge_dense.tasks import Depth, Normals, Segmentation

_root = "data/nyuv2"
tasks = dict(segmentation=dict(type=Segmentation), depth=dict(type=Depth), normals=dict(type=Normals))
data = dict(
    train=dict(type=NYUv2, root=_root, split="train"),
    unlabelled=dict(type=NYUv2, root=_root, split="val"),
    test=dict(type=NYUv2, root=_root, split="val"),
)
