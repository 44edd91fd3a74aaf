"""Rendered rooms, made on the spot: labelled images for experts, unlabelled ones to adapt on, others to test on."""

from symerge_dense.datasets import Augment
from symerge_dense.datasets.rooms import Rooms
from symerge_dense.tasks import Depth, Normals, Segmentation

tasks = dict(segmentation=dict(type=Segmentation), depth=dict(type=Depth), normals=dict(type=Normals))
data = dict(
    train=dict(type=Rooms, split="train", augment=dict(type=Augment, flip=0.5)),
    unlabelled=dict(type=Rooms, split="val"),
    test=dict(type=Rooms, split="test"),
)
