"""BatchNorm policies of the delivered model, and pools of awkward sizes."""

import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny

from symerge_dense.adaptation.finalize import image_batches
from symerge_dense.adaptation.options import make_options
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.merging.methods.average import Average
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.comparison.model_pool import ModelPool

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


def test_training_free_merges_follow_the_same_policy(tmp_path):
    base, experts, _ = tiny.family()
    name, found = "body.bn1.running_mean", {}
    for policy in ("pretrained", "mean", "recalibrate"):
        pool = Unlabelled(tiny.TinySet({}, split="pool"))
        options = make_options(batchnorm=policy, batch_size=4, recalibration_images=8)
        models = ModelPool(base, experts, pool, options, tmp_path, torch.device("cpu"))
        found[policy] = models.place(models.merge(Average())).backbone.state_dict()[name]
        assert bool(models._images) == (policy == "recalibrate"), "only re-estimation looks at images"
    assert torch.equal(found["pretrained"], base.state_dict()[name])
    means = torch.stack([expert.backbone.state_dict()[name] for expert in experts.values()]).mean(0)
    torch.testing.assert_close(found["mean"], means)
    assert not torch.allclose(found["recalibrate"], means)


@pytest.mark.parametrize("count", [2, 5, 9])
def test_no_pool_size_leaves_a_single_image_to_a_layer_that_pools_the_whole_image(count):
    backbone = tiny.backbone()
    heads, tasks = {"depth": {"type": "DeepLab"}}, {"depth": {"type": "depth"}}
    model = MultiTaskModel(backbone, heads, tasks, **tiny.PREPROCESSING)
    batches = list(image_batches(Unlabelled(tiny.TinySet({}, count=count)), 100, 4, torch.device("cpu")))
    assert sum(map(len, batches)) == count and min(map(len, batches)) >= 2
    recalibrate(model, batches)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
