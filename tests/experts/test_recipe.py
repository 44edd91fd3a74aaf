"""Options of a recipe that shape the optimizer and the final weights: layer decay, and the moving average."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from builders.tiny import PREPROCESSING, backbone, tasks
from experts.test_training import Recorder, data, network
from torch import nn

from symerge_dense.experts.recipe import Recipe
from symerge_dense.experts.training import fit
from symerge_dense.models.blocks import steps_from_end
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.multi_task import MultiTaskModel

MULTISCALE = {"type": "MultiScale", "width": 8}


def timm_network(name: str, **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, pretrained=False, **arguments)


# -- layer decay ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet18",
            {"conv1.weight": 8, "bn1.bias": 8, "layer1.0.conv1.weight": 7, "layer2.0.downsample.0.weight": 5,
             "layer4.0.conv2.weight": 1, "layer4.1.bn2.weight": 0},
        ),
        (
            "vit_tiny_patch16_224",
            {"model.cls_token": 12, "model.pos_embed": 12, "model.patch_embed.proj.weight": 12,
             "model.blocks.0.norm1.weight": 11, "model.blocks.10.mlp.fc1.bias": 1, "model.blocks.11.attn.proj.bias": 0},
        ),
        (
            "tf_efficientnet_lite0",  # the first stage is one block of another class: it goes with the stem
            {"conv_stem.weight": 15, "blocks.0.0.conv_dw.weight": 15, "blocks.1.0.conv_pw.weight": 14,
             "blocks.1.1.conv_pwl.weight": 13, "blocks.2.0.conv_dw.weight": 12, "blocks.6.0.conv_pwl.weight": 0},
        ),
        (
            "convnext_atto",
            {"stem_0.weight": 12, "stages_0.blocks.0.conv_dw.weight": 11, "stages_1.downsample.1.weight": 9,
             "stages_1.blocks.0.conv_dw.weight": 9, "stages_3.blocks.1.mlp.fc2.weight": 0},
        ),
    ],
)  # fmt: skip
def test_steps_from_the_end_by_hand(name, expected):
    steps = steps_from_end(network_ := timm_network(name))
    assert list(steps) == [name for name, _ in network_.named_parameters()]
    assert {name: steps[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_one_pass_over_the_weights_is_the_optimizer_s_own_loop_up_to_rounding(name):
    recipe = Recipe(optimizer=name, lr=0.01, backbone_lr_scale=0.5, weight_decay=0.1)
    networks = [network(seed=3) for _ in range(2)]
    plain = {"foreach": False, "momentum": 0.9} if name == "SGD" else {"foreach": False}
    groups = [{"params": networks[1].backbone.parameters(), "lr": 0.005}, {"params": networks[1].heads.parameters()}]
    optimizers = [
        recipe.build_optimizer(networks[0]),
        getattr(torch.optim, name)(groups, lr=0.01, weight_decay=0.1, **plain),
    ]
    for step in range(3):
        for model, optimizer in zip(networks, optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict(), rtol=1e-5, atol=1e-7)


def test_without_repeating_blocks_the_children_count():
    assert steps_from_end(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))) == {
        "0.weight": 1,
        "0.bias": 1,
        "1.weight": 0,
    }


def rates(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = recipe.build_optimizer(model).param_groups
    listed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_rates_by_hand():
    resnet = backbone({"name": "resnet18"}, 0)
    model = MultiTaskModel(resnet, {"depth": MULTISCALE}, {"depth": tasks()["depth"]}, **PREPROCESSING)
    found = rates(model, Recipe(lr=1e-3, backbone_lr_scale=0.1, layer_decay=0.5))
    assert found["heads.depth.predict.weight"] == 1e-3
    assert found["backbone.body.layer4.1.conv2.weight"] == pytest.approx(1e-4)
    assert found["backbone.body.layer4.0.conv2.weight"] == pytest.approx(0.5e-4)
    assert found["backbone.body.layer1.0.conv1.weight"] == pytest.approx(1e-4 / 2**7)
    assert found["backbone.body.conv1.weight"] == pytest.approx(1e-4 / 2**8)
    model.backbone.body.layer4.requires_grad_(False)
    assert "backbone.body.layer4.1.conv2.weight" not in rates(model, Recipe(layer_decay=0.5))


def test_without_layer_decay_there_are_two_groups():
    groups = Recipe(lr=1e-3, backbone_lr_scale=0.1).build_optimizer(network()).param_groups
    assert [group["lr"] for group in groups] == [1e-3 * 0.1, 1e-3]


# -- the moving average -----------------------------------------------------------------------------------------------
AVERAGED = Recipe(epochs=4, batch_size=2, lr=1e-2, backbone_lr_scale=0.5, layer_decay=0.7, ema=0.6)


class Keep(Recorder):
    """Keeps the weights after every step too."""

    priority = "VERY_HIGH"

    def __init__(self, stop=None):
        super().__init__(stop)
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.states.append(copy.deepcopy(runner.model.state_dict()))


def test_the_result_is_the_average_of_a_plain_loop(tmp_path):
    model, record = network(head=MULTISCALE), Keep()
    fit(model, data(), AVERAGED, tmp_path, title="x", seed=0, hooks=[record])
    average = {name: value.double() for name, value in record.states[0].items()}
    for step, state in enumerate(record.states[1:], start=1):
        decay = min(0.6, (1 + step) / (10 + step))
        average = {name: decay * value + (1 - decay) * state[name].double() for name, value in average.items()}
    found = model.state_dict()
    assert any(name.endswith("running_var") for name in found)
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6)
        else:
            assert value == record.states[-1][name] == 12
    last = record.states[-1]
    assert not torch.equal(found["heads.depth.conv.weight"], last["heads.depth.conv.weight"])


def test_the_average_changes_no_step(tmp_path):
    plain, averaged = Recorder(), Recorder()
    recipe = Recipe(epochs=2, batch_size=2, lr=1e-2)
    fit(network(), data(), recipe, tmp_path, title="x", seed=0, hooks=[plain])
    fit(
        network(),
        data(),
        Recipe(epochs=2, batch_size=2, lr=1e-2, ema=0.9),
        tmp_path,
        title="x",
        seed=0,
        hooks=[averaged],
    )
    assert plain.losses == averaged.losses


def test_an_interrupted_average_ends_like_an_unbroken_one(tmp_path):
    whole, broken = network(head=MULTISCALE), network(head=MULTISCALE)
    fit(whole, data(), AVERAGED, tmp_path / "a", title="x", seed=3)
    with pytest.raises(KeyboardInterrupt):
        fit(network(head=MULTISCALE), data(), AVERAGED, tmp_path / "b", title="x", seed=3, hooks=[Recorder(8)])
    for file in (tmp_path / "b").rglob("*.pth"):
        torch.load(file, weights_only=True)
    assert fit(broken, data(), AVERAGED, tmp_path / "b", title="x", seed=3).name == "epoch_2.pth"
    assert state_hash(broken.state_dict()) == state_hash(whole.state_dict())


# -- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_decay": 0}, r"layer_decay=0 must be in \(0, 1\]; 1 is one rate for all blocks"),
        ({"layer_decay": 1.2}, "layer_decay=1.2"),
        ({"layer_decay": float("nan")}, "layer_decay=nan"),
        ({"ema": 1.0}, r"ema=1.0 must be in \[0, 1\), such as 0.99; 0 is no average"),
        ({"ema": -0.1}, "ema=-0.1"),
    ],
)
def test_values_out_of_range_say_what_is_allowed(options, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**options)
