"""Activation matching: known permutations are found again, experts compute what they did, and come nearer."""

import copy

import numpy as np
import pytest
import torch
from builders import tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from symerge_dense.experts.matching import Matching, _Moments, match
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.tasks.depth import Depth

BODY = "backbone.body."


def batches(count=3):
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(4, 3, *tiny.SIZE, generator=generator) * 255 for _ in range(count)]


def expert(spec=tiny.CNN, seed=0, head="MultiScale"):
    """An expert whose units are all at work: an unused one fits any place."""
    torch.manual_seed(seed)
    head = {"type": head} if isinstance(head, str) else head
    model = MultiTaskModel(tiny.backbone(spec, seed), {"depth": head}, {"depth": Depth()}, **tiny.PREPROCESSING)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, 1, 2)
    recalibrate(model, batches())
    return model.eval()


def output(model):
    with torch.no_grad():
        return model(batches(1)[0])["depth"]


def distance(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return sum(float((mine - theirs).detach().square().sum()) for mine, theirs in pairs)


def moved_by_hand(state, order, rows, columns):
    """A state in which units stand in another order: the rows of some tensors, the columns of others."""
    changed = {name: value[order] for name, value in state.items() if name in rows}
    changed |= {name: value[:, order] for name, value in state.items() if name in columns}
    assert len(changed) == len(rows) + len(columns)
    return {**state, **changed}


def norm(name):
    return [f"{BODY}{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]


def test_hidden_channels_of_a_residual_block_are_found_again():
    model, order = expert(), torch.randperm(16, generator=torch.Generator().manual_seed(2))
    anchor, state = copy.deepcopy(model.backbone), copy.deepcopy(model.state_dict())
    rows = [f"{BODY}layer2.0.conv1.weight", *norm("layer2.0.bn1")]
    model.load_state_dict(moved_by_hand(state, order, rows, [f"{BODY}layer2.0.conv2.weight"]))
    found = match(model, anchor, batches())
    assert found.moved == int((order != torch.arange(16)).sum()) and found.similarity_matched == pytest.approx(1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_channels_of_a_stage_are_found_again_up_to_the_head():
    model, order = expert(), torch.randperm(24, generator=torch.Generator().manual_seed(2))
    anchor, state = copy.deepcopy(model.backbone), copy.deepcopy(model.state_dict())
    block = f"{BODY}layer3.0"
    rows = [f"{block}.conv2.weight", f"{block}.downsample.1.weight"]
    rows += norm("layer3.0.bn2") + norm("layer3.0.downsample.2")
    columns = [f"{BODY}layer4.0.conv1.weight", f"{BODY}layer4.0.downsample.1.weight", "heads.depth.laterals.2.weight"]
    model.load_state_dict(moved_by_hand(state, order, rows, columns))
    match(model, anchor, batches())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_heads_and_hidden_units_of_a_transformer_are_found_again():
    model, order = expert(tiny.VIT), torch.randperm(96, generator=torch.Generator().manual_seed(2))
    anchor, state = copy.deepcopy(model.backbone), copy.deepcopy(model.state_dict())
    mlp, attention = f"{BODY}model.blocks.1.mlp", f"{BODY}model.blocks.2.attn"
    moved = moved_by_hand(state, order, [f"{mlp}.fc1.weight", f"{mlp}.fc1.bias"], [f"{mlp}.fc2.weight"])
    heads = torch.arange(24).roll(12)  # two heads of 12 channels
    three = torch.cat([heads, heads + 24, heads + 48])
    moved = moved_by_hand(moved, three, [f"{attention}.qkv.weight", f"{attention}.qkv.bias"], [])
    model.load_state_dict(moved_by_hand(moved, heads, [], [f"{attention}.proj.weight"]))
    assert match(model, anchor, batches()).moved == int((order != torch.arange(96)).sum()) + 2
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT], ids=["cnn", "vit"])
def test_an_expert_of_other_first_weights_comes_nearer_and_computes_the_same(spec):
    model, anchor = expert(spec, seed=1), expert(spec, seed=2).backbone
    before, far, fixed = output(model), distance(model.backbone, anchor), copy.deepcopy(anchor.state_dict())
    found = match(model, anchor, batches())
    torch.testing.assert_close(output(model), before, rtol=1e-4, atol=1e-5)
    assert distance(model.backbone, anchor) < far and found.moved > found.units / 2
    assert found.similarity_matched > found.similarity + 0.1 and found.fixed == ()
    assert all(torch.equal(value, fixed[name]) for name, value in anchor.state_dict().items())


def test_a_matched_expert_stays_and_the_result_follows_from_the_images():
    first, second = expert(seed=1), expert(seed=1)
    anchor = expert(seed=2).backbone
    found = match(first, anchor, batches())
    assert match(second, anchor, iter(batches())) == found
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    again = match(first, anchor, batches())
    assert again.moved == 0 and again.similarity == pytest.approx(found.similarity_matched)


def test_units_that_never_fire_stay():
    model = expert()
    with torch.no_grad():
        model.backbone.body.layer2[0].bn1.weight.zero_()
        model.backbone.body.layer2[0].bn1.bias.fill_(-1)
    assert match(model, copy.deepcopy(model.backbone), batches()).moved == 0


def test_similarity_is_the_correlation():
    generator = np.random.default_rng(0)
    x, y = generator.normal(3, 2, (50, 4)), generator.normal(-1, 1, (50, 4))
    y[:, 1] += 2 * x[:, 3]
    for whole in (False, True):
        moments = _Moments(whole)
        for part in (slice(0, 20), slice(20, 50)):
            moments.add(torch.tensor(x[part]), torch.tensor(y[part]))
        found = moments.similarity(torch.tensor([[3], [0], [1]]))
        wanted = np.corrcoef(x.T, y.T)[:4, 4:][[3, 0, 1]][:, [3, 0, 1]]
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_similarity_of_wide_units_is_linear_cka():
    generator = np.random.default_rng(0)
    x, y = generator.normal(3, 2, (50, 4)), generator.normal(-1, 1, (50, 4))
    y[:, :2] += x[:, 2:] @ generator.normal(size=(2, 2))
    moments = _Moments(whole=True)
    moments.add(torch.tensor(x), torch.tensor(y))
    found = moments.similarity(torch.tensor([[0, 1], [2, 3]]))

    def cka(a, b):
        a, b = a - a.mean(0), b - b.mean(0)
        norms = [np.linalg.norm(part.T @ part) for part in (a, b)]
        return np.linalg.norm(a.T @ b) ** 2 / (norms[0] * norms[1])

    wanted = [[cka(x[:, i : i + 2], y[:, j : j + 2]) for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


class Numbered(nn.Module):
    """Weighs channels by their numbers, which stand in no tensor."""

    def __init__(self, in_channels):
        super().__init__()
        self.out = nn.Conv2d(in_channels[-1], 1, 1)

    def forward(self, features):
        return self.out(features[-1] * torch.linspace(0.5, 1.5, features[-1].shape[1])[:, None, None].to(features[-1]))


def test_a_network_that_tells_units_apart_is_refused_and_left_as_it_was():
    model = expert(seed=1, head=Numbered(tiny.backbone().channels))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"expert depth would change by .*ModuleHead.*[Ll]eave out experts\.match"):
        match(model, expert(seed=2).backbone, batches())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Float32(nn.Module):
    """A head that computes in float32, whatever it is given."""

    def __init__(self, in_channels):
        super().__init__()
        self.out = nn.Conv2d(in_channels[-1], 1, 1)

    def forward(self, features):
        return self.out(features[-1].float())


def test_a_head_that_insists_on_float32_is_compared_in_it():
    model = expert(seed=1, head=Float32(tiny.backbone().channels))
    before = output(model)
    assert match(model, expert(seed=2).backbone, batches()).moved
    torch.testing.assert_close(output(model), before, rtol=1e-4, atol=1e-5)


class OverImages(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.out = nn.Conv2d(in_channels[-1], 1, 1)

    def forward(self, features):
        return self.out(features[-1].mean(0, keepdim=True))


def test_a_network_that_cannot_be_analysed_is_named_with_the_module_and_a_remedy():
    wanted = r"units of resnet10t cannot be found: module heads\.depth\.module\.out .* Leave out experts\.match"
    with pytest.raises(ValueError, match=wanted):
        match(expert(head=OverImages(tiny.backbone().channels)), expert(seed=2).backbone, batches())


def test_other_architectures_and_options_are_refused():
    with pytest.raises(ValueError, match="one architecture"):
        match(expert(), tiny.backbone(tiny.VIT), batches())
    with pytest.raises(ValueError, match=r"unknown kind of matching 'weights'. Known: activations"):
        Matching(type="weights")
    with pytest.raises(ValueError, match=r"images=1 must be at least 2"):
        Matching(images=1)
