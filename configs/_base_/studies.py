"""What all studies share: small rooms (64x96), ResNet-18 experts of three tasks, trained once and kept by all of them.

A base or an expert takes about 150 s on one core, one adaptation some tens of seconds. A study changes what it asks
about, and ``quick`` what a first look reduces: fewer frames, tasks and rounds.
"""

from mmengine.config import read_base

from symerge_dense.datasets import Augment
from symerge_dense.datasets.rooms import Rooms
from symerge_dense.models.heads import MultiScale
from symerge_dense.tasks import Albedo, Depth, Edges, Normals, Segmentation

_size = (64, 96)
tasks = dict(segmentation=dict(type=Segmentation), depth=dict(type=Depth), normals=dict(type=Normals))
data = dict(
    train=dict(type=Rooms, split="train", count=300, size=_size, augment=dict(type=Augment, flip=0.5)),
    unlabelled=dict(type=Rooms, split="val", count=200, size=_size),
    test=dict(type=Rooms, split="test", count=200, size=_size),
)
backbone = dict(name="resnet18")
head = dict(type=MultiScale, width=32)
preprocessing = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
base = dict(
    train=dict(
        tasks=dict(albedo=dict(type=Albedo), edges=dict(type=Edges)),
        recipe=dict(epochs=16, batch_size=8, lr=2e-3, weight_decay=1e-4),
    )
)
experts = dict(recipe=dict(epochs=16, batch_size=8, lr=2e-3, backbone_lr_scale=0.25, weight_decay=1e-4))
adaptation = dict(rounds=150, batch_size=8, recalibration_images=100)
baselines = dict(scales=[0.2, 0.3, 0.4, 0.5, 0.6])
evaluation = dict(batch_size=20)
quick = {
    "study.seeds": 2,
    "study.tasks": ["segmentation", "depth"],
    "data.train.count": 48,
    "data.unlabelled.count": 32,
    "data.test.count": 32,
    "base.train.recipe.epochs": 3,
    "experts.recipe.epochs": 3,
    "adaptation.rounds": 12,
    "adaptation.recalibration_images": 32,
    "baselines.scales": [0.3, 0.5],
}
