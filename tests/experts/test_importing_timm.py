"""A plain state dict of a timm backbone and any head becomes an expert that computes the same, or is refused."""

import shlex
from pathlib import Path

import pytest
import timm
import torch
from builders import tiny
from builders.pipeline_tiny import tool
from safetensors.torch import save_file
from torch import nn

from symerge_dense import registry
from symerge_dense.commands.cli import main
from symerge_dense.experts.importing.importer import import_expert
from symerge_dense.experts.importing.next_step import next_step
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.registry import HEADS

HEADS_FILE = '''"""Heads of a lab that knows torch and nothing of symerge_dense."""

from torch import nn


class Decoder(nn.Module):
    def __init__(self, inputs, outputs, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.out = nn.Conv2d(width, outputs, 1)

    def forward(self, features):
        return self.out(self.body(features[-1]))


def build(in_channels, channels, width=8):
    return Decoder(in_channels[-1], channels, width)
'''
SIZE, BACKBONE = (64, 96), {"name": "resnet10t", "channels": (8, 16, 24, 32), "stem_width": 8}
WORDS = ["resnet10t", "channels=[8,16,24,32]", "stem_width=8"]
OUTPUTS = {"segmentation": 5, "depth": 1}


class Trained(nn.Module):
    """A network as somebody trained it: a timm encoder, a decoder, and an auxiliary head."""

    def __init__(self, build, outputs, **options):
        super().__init__()
        arguments = {key: value for key, value in BACKBONE.items() if key != "name"}
        self.encoder = timm.create_model(BACKBONE["name"], features_only=True, out_indices=(1, 2, 3, 4), **arguments)
        self.decoder = build([8, 16, 24, 32], outputs, **options)
        self.aux = nn.Conv2d(32, outputs, 1)

    def forward(self, image):
        return self.decoder(self.encoder(image))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with the lab's module, one base, and two experts of it: {task: network}."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "heads.py").write_text(HEADS_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "imported", {})
    for name in ("my_lab", "my_lab.heads"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    from my_lab.heads import build

    torch.manual_seed(0)
    networks = {task: Trained(build, outputs).eval() for task, outputs in OUTPUTS.items()}
    origin = networks["depth"].encoder.state_dict()
    torch.save(origin, "base.pth")
    for task, network in networks.items():
        network.encoder.load_state_dict(
            {k: v + 0.01 * torch.rand_like(v) if v.is_floating_point() else v for k, v in origin.items()}
        )
        torch.save({"model_state_dict": network.state_dict(), "epoch": 3}, f"{task}.pth")
    yield networks
    HEADS.module_dict.pop("my_lab.heads:build", None)


def words(task, *more, head=("my_lab.heads:build",), source=None):
    found = [source or f"{task}.pth", "--format", "timm", "--backbone", *WORDS, "--head", *head, "--task", task]
    return [*found, "--base", "base.pth", "--out", f"{task}.safetensors", "--drop", "aux.*", *more]


def outputs_of(path, image):
    model, record = load_model(path)
    with torch.no_grad():
        return model, record, model(image, mode="tensor")


@pytest.mark.parametrize("task", OUTPUTS)
def test_it_computes_what_the_trained_network_computes(lab, task, capsys):
    assert tool("import_expert.py", *words(task, "--mean", "0", "0", "0", "--std", "255", "255", "255")) == 0
    printed = capsys.readouterr().out
    assert "matched" in printed and "missing 0, unexpected 0" in printed and "decoder.* into the head" in printed
    image = torch.rand(2, 3, *SIZE) * 255
    model, record, found = outputs_of(f"{task}.safetensors", image)
    with torch.no_grad():
        torch.testing.assert_close(found[task], lab[task](image / 255), rtol=1e-4, atol=1e-5)
    assert model.tasks[task].channels == OUTPUTS[task]  # the number of classes is read off the head
    assert record["plugins"] == {"head my_lab.heads:build": "my_lab.heads:build"}
    assert record["origin"]["dropped"] == ["aux.weight", "aux.bias"] and record["origin"]["key"] == "model_state_dict"
    assert record["base_hash"]


def test_a_file_names_the_head_to_import_and_imports_nothing(lab):
    assert tool("import_expert.py", *words("depth")) == 0
    del HEADS.module_dict["my_lab.heads:build"]
    with pytest.raises(ValueError, match=r"import that module first \(--import my_lab\.heads:build"):
        load_model("depth.safetensors")
    registry.import_plugins(["my_lab.heads:build"])
    assert load_model("depth.safetensors")[0].heads["depth"].name == "my_lab.heads:build"


def test_the_printed_commands_run(lab, capsys):
    assert tool("import_expert.py", *words("depth")) == 0
    assert "symerge predict depth.safetensors PHOTOS --out predictions --import my_lab.heads:build" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    assert tool("import_expert.py", *words("segmentation")) == 0
    line = capsys.readouterr().out.splitlines()[-1].strip()
    program, *rest = shlex.split(line)
    assert program == "symerge" and rest[:2] == ["merge", "--method"]
    assert main(rest) == 0
    assert set(load_model("merged.safetensors")[0].tasks) == set(OUTPUTS)


@pytest.mark.parametrize("layers", [["body.0"], ["body.0", "body.1"]])
def test_the_layer_to_adapt_is_kept(lab, layers):
    assert tool("import_expert.py", *words("depth", "--adapt-layer", *layers)) == 0
    head = load_model("depth.safetensors")[0].heads["depth"]
    assert head.layer_modules("pre_final") == [f"module.{name}" for name in layers]
    assert head.layer_modules("final") == ["module.out"]


def test_a_layer_that_is_not_there(lab, capsys):
    assert tool("import_expert.py", *words("depth", "--adapt-layer", "bodi.0")) == 2
    assert "unknown submodule 'bodi.0'. Did you mean 'body.0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [("--backbone", "resnet18"), ("--head", "MultiScale", "width=8"), ("--adapt-layer", "body.0")]
)
def test_what_another_format_would_not_heed_is_refused(lab, capsys, more):
    assert tool("import_expert.py", "depth.pth", "--out", "depth.safetensors", "--format", "libmtl", *more) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--format libmtl takes the network from the file: give --format timm with --backbone" in said
    assert not Path("depth.safetensors").exists()


@pytest.mark.parametrize(
    "head",
    [
        ("my_lab.heads:build", "width=8"),
        ("type=my_lab.heads:build", "width=8"),
        ('{"type": "my_lab.heads:build", "width": 8}',),
        ("my_lab.heads:build",),
    ],
)
def test_a_head_is_given_in_several_forms(lab, head):
    assert tool("import_expert.py", *words("depth", head=head)) == 0


def test_a_head_of_this_package(lab):
    options = {"in_channels": [8, 16, 24, 32], "strides": [4, 8, 16, 32], "channels": 4}
    head = HEADS["MultiScale"](**options, width=16)
    state = {f"backbone.{name}": value for name, value in lab["depth"].encoder.state_dict().items()}
    state |= {f"head.{name}": value for name, value in head.state_dict().items()}
    for name, prefix in (("plain", ""), ("lightning", "model."), ("parallel", "module.")):
        save_file({f"{prefix}{key}": value for key, value in state.items()}, f"{name}.safetensors")
        record = import_expert(
            f"{name}.safetensors",
            f"{name}_out.safetensors",
            kind="timm",
            backbone=BACKBONE,
            head={"type": "MultiScale", "width": 16},
            tasks=["segmentation"],
            base="base.pth",
        )
        model, _ = load_model(f"{name}_out.safetensors")
        assert model.tasks["segmentation"].channels == 4 and record["base_hash"]
        assert torch.equal(model.heads["segmentation"].predict.weight, head.predict.weight)


def test_names_are_changed(lab, capsys):
    state = {name.replace("encoder.", "net.e_"): value for name, value in lab["depth"].state_dict().items()}
    torch.save(state, "odd.pth")
    assert tool("import_expert.py", *words("depth", source="odd.pth")) == 2
    text = capsys.readouterr().err
    assert "net.e_conv1.0.weight" in text and "--rename OLD=NEW" in text
    assert tool("import_expert.py", *words("depth", "--rename", "net.e_=backbone.", source="odd.pth")) == 0


def test_averaged_weights_on_request(lab, capsys):
    state = lab["depth"].state_dict()
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, "both.pth")
    assert tool("import_expert.py", *words("depth", source="both.pth")) == 0
    assert "averaged (EMA) weights under 'state_dict_ema' are not used; --ema" in capsys.readouterr().out
    assert tool("import_expert.py", *words("depth", "--ema", "--overwrite", source="both.pth")) == 0
    head = load_model("depth.safetensors")[0].heads["depth"].module
    assert torch.equal(head.out.weight, averaged["decoder.out.weight"])
    assert tool("import_expert.py", *words("depth", "--ema", "--overwrite")) == 2
    assert "holds no averaged (EMA) weights; leave it out" in capsys.readouterr().err
    torch.save({"student": state, "teacher": averaged}, "two.pth")
    assert tool("import_expert.py", *words("depth", "--overwrite", source="two.pth")) == 2
    assert "--key student" in capsys.readouterr().err
    assert tool("import_expert.py", *words("depth", "--overwrite", "--key", "teacher", source="two.pth")) == 0


REFUSED = {
    "leftovers": (["--drop", "aux.bias"], "1: aux.weight belong neither to the backbone resnet10t nor to the head"),
    "pattern": (["--drop", "aux.*", "auxx.*"], "--drop 'auxx.*' fits no name"),
    "rename": (["--rename", "nett.=backbone."], "--rename nett.=...: no name in depth.pth starts so"),
    "collision": (["--rename", "decoder.out.=x.", "decoder.body.0.=x."], "gives two tensors of depth.pth the name"),
    "form": (["--rename", "nett."], "'nett.' is not OLD=NEW"),
    "backbone": (["--backbone", "resnet10"], "Did you mean 'resnet10t'"),
    "other backbone": (["--backbone", "convnext_atto"], "has no tensor of the backbone convnext_atto"),
    "wider": (["--backbone", "resnet10t", "channels=[8,16,24,40]", "stem_width=8"], "wrong shape"),
    "head": (["--head", "my_lab.heads:built"], "unknown head of module my_lab.heads 'built'. Did you mean 'build'"),
    "module": (["--head", "my_labb.heads:build"], "plug-in my_labb.heads:build cannot be imported"),
    "registered": (["--head", "MultiScal"], "unknown head 'MultiScal'. Did you mean 'MultiScale'"),
    "option": (["--head", "my_lab.heads:build", "with=8"], "unexpected keyword argument 'with'"),
    "width": (["--head", "my_lab.heads:build", "width=16"], "does not fill the head"),
    "json": (["--head", '{"type": '], "is no JSON"),
    "no head": (["--head", "width=16"], "give --backbone, the name of the timm network, --head"),
    "task": (["--task", "dept"], "unknown task 'dept'. Did you mean 'depth'"),
    "two tasks": (["--task", "depth", "normals"], "--task, the one task"),
    "channels": (["--task", "normals"], "wrong shape"),
    "key": (["--key", "modell"], "unknown key 'modell'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_says_what_to_do_and_writes_nothing(lab, kind, tmp_path, capsys):
    more, message = REFUSED[kind]
    assert tool("import_expert.py", *words("depth", *more)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "depth.safetensors").exists()


def test_a_damaged_neighbour_does_not_stop_an_import(tmp_path):
    for name, content in {
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "cut": b"\x10" + bytes(20),
    }.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    torch.save({"a.weight": torch.zeros(2, 2)}, tmp_path / "torch.safetensors")
    _, experts, _ = tiny.family()
    save_model(tmp_path / "depth.safetensors", experts["depth"], {"base_hash": "b", "origin": {}})
    assert "symerge predict" in next_step(tmp_path / "depth.safetensors", None, "b")
