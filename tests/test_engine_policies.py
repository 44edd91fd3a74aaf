"""BatchNorm policies of the delivered model, and pools of awkward sizes."""

import pytest
import tiny
import torch
from adapt_once import adapt_tiny

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.batchnorm import recalibrate
from symerge_dense.engine.folding import image_batches
from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.pipeline.baselines import Contest

POLICIES = {
    "pretrained": lambda base, experts: base,
    "mean": lambda base, experts: torch.stack(experts).mean(0),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_on_weights_gives_the_backbone_its_statistics_and_heads_their_experts(tmp_path, policy):
    base, experts, _ = tiny.family()
    model, _ = adapt_tiny(tmp_path, rounds=2, batchnorm=policy)
    name = "body.bn1.running_var"
    wanted = POLICIES[policy](base.state_dict()[name], [e.backbone.state_dict()[name] for e in experts.values()])
    torch.testing.assert_close(model.model.backbone.state_dict()[name], wanted)
    for task, expert in experts.items():
        own = expert.heads[task].state_dict()["norm.running_mean"]
        assert torch.equal(model.model.heads[task].state_dict()["norm.running_mean"], own)


def test_moments_and_recalibration_differ_from_the_mean(tmp_path):
    name, found = "body.bn1.running_var", {}
    for policy in ("mean", "moments", "recalibrate"):
        model, _ = adapt_tiny(tmp_path / policy, rounds=2, batchnorm=policy)
        found[policy] = model.model.backbone.state_dict()[name].clone()
    assert (found["moments"] >= found["mean"]).all() and not torch.equal(found["moments"], found["mean"])
    assert not torch.allclose(found["recalibrate"], found["mean"])


def test_training_free_merges_follow_the_same_policy():
    base, experts, model = tiny.family()
    looked = []

    def images():
        looked.append(True)
        return [torch.rand(4, 3, *tiny.SIZE) * 255]

    kept = Contest(model, experts, images, lambda *_: {}, "pretrained").merge("average").backbone.state_dict()
    assert not looked and torch.equal(kept["body.bn1.running_mean"], base.state_dict()["body.bn1.running_mean"])
    Contest(model, experts, images, lambda *_: {}).merge("average")
    assert looked


@pytest.mark.parametrize("count", [2, 5, 9])
def test_no_pool_size_leaves_a_single_image_to_a_layer_that_pools_the_whole_image(count):
    backbone = tiny.backbone()
    heads, tasks = {"depth": {"type": "DeepLab"}}, {"depth": {"type": "depth"}}
    model = MultiTaskModel(backbone, heads, tasks, **tiny.PREPROCESSING)
    batches = list(image_batches(Unlabelled(tiny.TinySet({}, count=count)), 100, 4, torch.device("cpu")))
    assert sum(map(len, batches)) == count and min(map(len, batches)) >= 2
    recalibrate(model, batches)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
