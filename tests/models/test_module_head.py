"""Any nn.Module is a head: registered and built by name, or wrapped as an object."""

import copy
import json

import pytest
import torch
from builders import tiny
from builders.adapt_once import OPTIONS
from torch import nn

from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.low_rank import TaskAdapted
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.experts.recipe import Recipe
from symerge_dense.experts.training import fit
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model
from symerge_dense.models.heads.base import Head
from symerge_dense.models.heads.native import Linear
from symerge_dense.models.module_head import ModuleHead
from symerge_dense.models.multi_task import MultiTaskModel, assemble
from symerge_dense.pipeline.config_checks import check_arguments
from symerge_dense.registry import HEADS
from symerge_dense.tasks.depth import Depth

CHANNELS, STRIDES = [8, 16, 24, 32], [4, 8, 16, 32]


class Plain(nn.Module):
    """A head as somebody writes it who knows torch and nothing of this package."""

    def __init__(self, in_channels, strides, channels, width=8, act="relu"):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels[-1], width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.norm = nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, channels, 1)
        self.act = {"relu": torch.relu, "tanh": torch.tanh}[act]

    def forward(self, features):
        return self.out(self.act(self.norm(self.body(features.pop()))))  # the list is its own


class Declared(Plain):
    """Says which layers have the names that methods use."""

    layers = {"final": "out", "pre_final": ("body.2", "norm"), "first": ("body.0",)}  # noqa: RUF012 - a user's style


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Both classes under their names, for one test."""
    for owner in (Plain, Declared):
        monkeypatch.setitem(HEADS.module_dict, owner.__name__, owner)


def features(images=2):
    return [torch.randn(images, c, 32 // s, 32 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def network(head, seed=0):
    torch.manual_seed(seed)
    return MultiTaskModel(tiny.backbone(), {"depth": head}, {"depth": Depth()}, **tiny.PREPROCESSING)


def wrapped(owner=Plain, channels=1, **options):
    return ModuleHead(owner(CHANNELS, STRIDES, channels), channels, **options)


# -- by registering ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["Plain", Plain])
def test_a_registered_plain_module_is_built_with_features_channels_and_its_options(kind):
    head = network({"type": kind, "width": 4, "act": "tanh"}).heads["depth"]
    assert isinstance(head, ModuleHead) and isinstance(head, Head) and type(head.module) is Plain
    assert head.module.body[0].weight.shape == (4, 32, 1, 1) and head.module.act is torch.tanh
    assert (head.name, head.channels) == ("Plain", 1)
    assert head.spec == {"type": "Plain", "width": 4, "act": "tanh"}


def test_tensors_keep_the_modules_names_behind_one_prefix():
    head, own = wrapped(), Plain(CHANNELS, STRIDES, 1)
    assert list(head.state_dict()) == [f"module.{name}" for name in own.state_dict()]
    net = network(head)
    net.heads["depth"].module.load_state_dict(own.state_dict())
    assert torch.equal(net.state_dict()["heads.depth.module.out.weight"], own.out.weight)


def test_the_output_is_the_modules_and_other_heads_still_see_all_features():
    head, inputs = wrapped().eval(), features()
    expected = head.module(list(inputs))
    assert torch.equal(head(inputs), expected) and len(inputs) == 4


def test_a_name_given_by_register_module_is_the_name_in_files(monkeypatch):
    monkeypatch.setitem(HEADS.module_dict, "my_name", type("Other", (Plain,), {"__module__": "my_lab.heads"}))
    assert network({"type": "my_name"}).heads["depth"].spec == {"type": "my_name"}


def test_a_model_file_builds_the_head_again(tmp_path):
    net = network({"type": "Declared", "width": 4})
    save_model(tmp_path / "a.safetensors", net)
    again, metadata = load_model(tmp_path / "a.safetensors")
    assert again.spec == net.spec == json.loads(json.dumps(net.spec))
    image = torch.rand(2, 3, *tiny.SIZE) * 255
    assert torch.equal(again(image)["depth"], net.eval()(image)["depth"])
    assert metadata["plugins"] == {"head Declared": Declared.__module__}
    assert again.heads["depth"].layers == net.heads["depth"].layers


def test_the_record_names_the_plugins_of_this_model_and_not_of_an_earlier_one(tmp_path):
    save_model(tmp_path / "a.safetensors", network({"type": "Plain"}))
    record = read_metadata(tmp_path / "a.safetensors")
    save_model(tmp_path / "b.safetensors", network({"type": "Linear"}), record)
    assert "plugins" in record and "plugins" not in read_metadata(tmp_path / "b.safetensors")


# -- by wrapping ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("head", [lambda: wrapped(), lambda: Plain(CHANNELS, STRIDES, 1)], ids=["wrapped", "bare"])
def test_an_object_works_in_a_model_at_once(head):
    net = network(head())
    assert net(torch.rand(2, 3, *tiny.SIZE) * 255)["depth"].shape == (2, 1, 1, 2)
    assert [name for name, _ in net.named_heads()] == ["depth"]


def test_an_object_that_says_its_options_has_a_place_in_a_file(tmp_path):
    net = network(ModuleHead(Plain(CHANNELS, STRIDES, 1, width=4), 1, options={"width": 4}))
    save_model(tmp_path / "a.safetensors", net)
    assert load_model(tmp_path / "a.safetensors")[0].spec["heads"] == {"depth": {"type": "Plain", "width": 4}}


def test_objects_without_a_spec_are_trained_assembled_and_adapted(tmp_path, monkeypatch):
    monkeypatch.delitem(HEADS.module_dict, "Plain")
    base = tiny.backbone()
    expert = network(wrapped(layers={"pre_final": "body.2"}), seed=1)
    data = tiny.TinySet({"depth": Depth()}, count=4)
    fit(expert, data, Recipe(epochs=1, batch_size=2), tmp_path / "fit", title="depth", seed=0)
    assert list(assemble(base, {"depth": expert}).frame["tasks"]) == ["depth"]
    assert TaskAdapted(copy.deepcopy(expert), torch.rand(1, 3, *tiny.SIZE) * 255, 2, 0).levels("depth").keys() == {3}
    model = SyMergeModel(base, {"depth": expert}, make_options(**{**OPTIONS, "rounds": 2, "layer": "body.2"}))
    assert model.adapted == {"depth": ["module.body.2"]}
    before = copy.deepcopy(model.model.heads["depth"].state_dict())
    adapt(model, {"depth": expert}, Unlabelled(tiny.TinySet({}, count=8)), tmp_path / "adapt", seed=0)
    after = model.model.heads["depth"].state_dict()
    learned = {n for n in after if not torch.equal(before[n], after[n]) and "running" not in n and "tracked" not in n}
    assert learned == {"module.body.2.weight", "module.body.2.bias"}


# -- layers -----------------------------------------------------------------------------------------------------------
def test_layers_go_by_the_modules_own_names():
    head = wrapped()
    assert head.layer_modules("body.2") == ["module.body.2"]
    assert head.layer_modules("head") == [""]
    assert head.get_submodule(head.layer_modules("body.2")[0]) is head.module.body[2]


def test_the_final_layer_is_found_and_others_are_declared():
    assert wrapped().layers == {"final": ("module.out",)}
    assert wrapped(Declared).layers == {
        "final": ("module.out",),
        "pre_final": ("module.body.2", "module.norm"),
        "first": ("module.body.0",),
    }
    assert wrapped(Declared).layer_modules("first") == ["module.body.0"]
    assert wrapped(layers={"final": ("norm", "out")}).layer_modules("final") == ["module.norm", "module.out"]
    same = nn.Sequential(nn.Conv2d(32, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    assert ModuleHead(same, 3).layers == {"final": ("module.1",)}


def test_a_submodule_called_layers_declares_nothing():
    module = nn.Module()
    module.layers = nn.ModuleDict({"final": nn.Conv2d(3, 7, 1), "out": nn.Conv2d(3, 1, 1)})
    assert ModuleHead(module, 1).layers == {"final": ("module.layers.out",)}


def test_a_layer_that_is_not_declared_is_explained_with_what_there_is():
    with pytest.raises(ValueError) as error:
        wrapped().layer_modules("pre_final")
    for word in ("unknown layer 'pre_final'", "body.2, final, head, norm, out", "head 'Plain'", "declare layers ="):
        assert word in str(error.value)
    with pytest.raises(ValueError, match=r"unknown layer 'final'.*declare layers = \{'final'"):
        ModuleHead(nn.Sequential(nn.Conv2d(3, 7, 1)), 1).layer_modules("final")
    with pytest.raises(ValueError, match=r"unknown layer 'body.22'. Did you mean 'body.2'") as error:
        wrapped().layer_modules("body.22")
    assert "declare" not in str(error.value)
    with pytest.raises(ValueError, match=r"has no convolution before its predictor"):
        wrapped(layers={"pre_final": ()}).layer_modules("pre_final")


def test_a_declared_layer_must_be_there():
    with pytest.raises(ValueError, match=r"layers\['pre_final'\] of head 'Plain'.*'bodi.2'. Did you mean 'body.2'"):
        wrapped(layers={"pre_final": "bodi.2"})


# -- what is refused --------------------------------------------------------------------------------------------------
def test_a_class_that_is_not_registered_has_no_place_in_a_file(tmp_path, monkeypatch):
    monkeypatch.delitem(HEADS.module_dict, "Plain")
    for head in (wrapped(), {"type": Plain, "width": 4}):
        with pytest.raises(ValueError, match=r"'Plain' has no place.*@HEADS.register_module\(\).*before class .*Plain"):
            save_model(tmp_path / "a.safetensors", network(head))
    with pytest.raises(ValueError, match=r"head 'Mine' is not registered.*@HEADS.register_module"):
        save_model(tmp_path / "a.safetensors", network({"type": type("Mine", (Linear,), {})}))
    assert list(tmp_path.iterdir()) == []


def test_an_object_whose_options_are_not_known_or_not_plain_has_no_place_in_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"'Plain' is an object whose arguments.*dict\(type='Plain'.*options="):
        save_model(tmp_path / "a.safetensors", network(wrapped()))
    with pytest.raises(ValueError, match=r"head 'Plain': .*cannot be kept in a file.*plain values"):
        save_model(tmp_path / "a.safetensors", network(wrapped(options={"act": torch.relu})))


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match="channels=0 must be >= 1"):
        ModuleHead(nn.Identity(), 0)
    with pytest.raises(ValueError, match="the head of depth has 3 channels, the task 1"):
        network(wrapped(channels=3))
    with pytest.raises(ValueError, match=r"head 'Plain' gives shape \(2, 3, 1, 1\) instead of one map \(N, 1, h, w\)"):
        ModuleHead(Plain(CHANNELS, STRIDES, 3), 1)(features())
    with pytest.raises(ValueError, match="head 'Identity' gives list"):
        ModuleHead(nn.Identity(), 1)(features())


def test_what_does_not_fit_the_constructor_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"head \{.*\} of depth, built with in_channels, strides, channels: .*'wide'"):
        network({"type": "Plain", "wide": 3})
    monkeypatch.setitem(HEADS.module_dict, "function", lambda in_channels, strides, channels: None)
    with pytest.raises(ValueError, match=r"NoneType is no torch.nn.Module"):
        network({"type": "function"})


@pytest.mark.parametrize("kind", ["Plain", Plain])
def test_a_config_is_checked_against_the_modules_own_arguments(kind):
    check_arguments({"type": kind, "width": 4}, HEADS, "head")
    with pytest.raises(ValueError, match=r"head: unknown key 'widht'. Did you mean 'width'"):
        check_arguments({"type": kind, "widht": 4}, HEADS, "head")
    with pytest.raises(ValueError, match="unknown key 'channels'"):
        check_arguments({"type": kind, "channels": 4}, HEADS, "head")


def test_batchnorm_after_pooling_is_refused_for_one_image_in_wrapped_heads_too():
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 1, 1), nn.BatchNorm2d(1))
    with pytest.raises(ValueError, match=r"batch size 1.*in 'module' of head 'Sequential'"):
        ModuleHead(pool, 1).refuse_single_image(1)


def test_a_head_class_without_a_name_goes_by_its_class_name():
    class Mine(Linear):
        """A variant."""

    assert Mine.name == "Mine" and Linear.name == "Linear"
    assert Mine(CHANNELS, STRIDES, 1).spec == {"type": "Mine", "norm": True}
