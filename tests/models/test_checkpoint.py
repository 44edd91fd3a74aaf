"""Model files: bit-exact there and back, and a clear word about every file that is not one."""

import json
import os
import pickle
import shutil
from collections import OrderedDict

import pytest
import torch
from builders import tiny
from builders.tiny import CNN, PREPROCESSING, SIZE, VIT, backbone, tasks
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from symerge_dense.models.backbone import load_base
from symerge_dense.models.checkpoint import (
    CorruptFileError,
    UnsafeFileError,
    check_same_base,
    load_model,
    match_report,
    read_metadata,
    read_state,
    save_model,
    state_hash,
)
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.weight_files import has_record
from symerge_dense.registry import HEADS

HEAD = {"type": "MultiScale", "width": 4}


def network(spec=CNN):
    return MultiTaskModel(backbone(spec), dict.fromkeys(tasks(), HEAD), tasks(), **PREPROCESSING)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network(), {"base_hash": "abc", "training": {"lr": 0.1}, "metrics": {"depth": {"abs": 0.5}}})
    return path


def rewrite(path, change=None, **metadata):
    """The file with changed tensors, or with changed entries of its record."""
    state = load_file(path)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["symerge_dense"])
    if change is not None:
        change(state)
        model = MultiTaskModel.from_spec(record["model"])
        if set(state) == set(model.state_dict()):
            record["hash"] = state_hash(state)
    save_file(state, path, metadata={"symerge_dense": json.dumps({**record, **metadata})})


# -- there and back ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [CNN, VIT])
def test_round_trip_is_bit_exact(spec, tmp_path):
    net = network(spec)
    net(torch.rand(2, 3, *SIZE) * 255)  # moves BatchNorm statistics and counters
    path = tmp_path / "deep" / "model.safetensors"
    save_model(path, net, {"base_hash": "abc", "note": [1, 2]})
    again, metadata = load_model(path)
    assert not again.training and state_hash(again.state_dict()) == state_hash(net.state_dict()) == metadata["hash"]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())
    image = torch.rand(1, 3, *SIZE) * 255
    for ours, theirs in zip(net.eval()(image).values(), again(image).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert metadata["model"] == net.spec and metadata["tasks"] == list(tasks()) and metadata["note"] == [1, 2]
    assert metadata["preprocessing"] == net.spec["preprocessing"] and metadata["backbone"] == net.backbone.spec
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("half", [False, True])
def test_a_mapped_model_is_the_same_and_never_changes_its_file(half, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network(), half=half)
    before, read, mapped = path.read_bytes(), load_model(path)[0], load_model(path, mapped=True)[0]
    image = torch.rand(1, 3, *SIZE) * 255
    for ours, theirs in zip(read(image).values(), mapped(image).values(), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        for tensor in (*mapped.parameters(), *mapped.buffers()):
            tensor.add_(1)
    assert path.read_bytes() == before and load_model(path)[1]["hash"] == state_hash(load_file(path))


def test_metadata_can_be_saved_again(saved, tmp_path):
    model, metadata = load_model(saved)
    save_model(tmp_path / "copy.safetensors", model, metadata)
    assert read_metadata(tmp_path / "copy.safetensors") == metadata == read_metadata(saved)


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    net = network()
    with pytest.raises(ValueError, match="plain JSON"):
        save_model(saved, net, {"object": object()})
    with torch.no_grad():
        net.backbone.body.conv1[0].weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"1: backbone.body.conv1.0.weight not finite"):
        save_model(saved, net)
    with pytest.raises(ValueError, match=r"end in .safetensors"):
        save_model(saved.with_suffix(".pth"), network())
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_model(saved, network())
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1


def test_state_hash_sees_names_types_shapes_and_values_and_not_order():
    state = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    digest = state_hash(state)
    assert digest == state_hash(dict(reversed(state.items()))) and len(digest) == 64
    assert digest == state_hash({"a": torch.arange(8.0)[:4].view(2, 2).T.T.reshape(4), "b": torch.tensor(1)})
    others = [
        {**state, "c": torch.zeros(0)},
        {"a": state["a"], "c": state["b"]},
        {**state, "a": state["a"].view(2, 2)},
        {**state, "a": state["a"].double()},
        {**state, "b": torch.tensor(2)},
        {**state, "a": -state["a"]},
    ]
    assert len({digest, *map(state_hash, others)}) == 1 + len(others)


# -- what is no model file --------------------------------------------------------------------------------------------
def test_a_missing_file_names_its_neighbours(saved):
    with pytest.raises(ValueError, match=r"no file .*modell.safetensors.*model.safetensors"):
        load_model(saved.with_name("modell.safetensors"))
    with pytest.raises(ValueError, match="no file"):
        read_state("/no/such/folder/x.pth")


@pytest.mark.parametrize("size", [0, 5, 300, -7])
def test_a_truncated_file(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(CorruptFileError, match=r"model.safetensors.*copy it again"):
        load_model(saved)
    with pytest.raises(CorruptFileError, match=r"model.safetensors.*again"):
        read_state(saved)


def test_a_flipped_bit(saved):
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CorruptFileError, match="not those that were saved"):
        load_model(saved)


def test_a_file_of_another_kind_is_not_called_damaged(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "expert.pth")
    with pytest.raises(ValueError, match=r"expert\.pth is not read: it is no safetensors file.*load_base") as found:
        load_model(tmp_path / "expert.pth")
    assert not isinstance(found.value, CorruptFileError)


def test_a_foreign_safetensors_file(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"plain.safetensors is not a model file.*load_base"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"symerge_dense": "{not json"})
    with pytest.raises(CorruptFileError, match=r"plain.safetensors"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"symerge_dense": "[1]"})
    with pytest.raises(ValueError, match="is not a model file"):
        load_model(path)


def test_a_newer_format(saved):
    rewrite(saved, format=99)
    with pytest.raises(ValueError, match=r"model.safetensors has format 99.*update"):
        load_model(saved)


def test_a_network_that_is_unknown_here(saved):
    spec = read_metadata(saved)["model"]
    rewrite(saved, model={**spec, "backbone": {"name": "resnet_of_tomorrow"}})
    with pytest.raises(ValueError, match=r"model.safetensors describes .* cannot be built.*resnet_of_tomorrow"):
        load_model(saved)
    rewrite(saved, model="nothing")
    with pytest.raises(ValueError, match="cannot be built"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("heads.depth.predict.bias"), r"heads.depth: .*missing 1: heads.depth.predict.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), r"extra: .*unexpected 1: extra"),
        (
            lambda s: s.update({"heads.depth.norm.bias": torch.zeros(9)}),
            r"wrong shape 1: heads.depth.norm.bias \(9,\) for \(4,\)",
        ),
        (lambda s: s["backbone.body.bn1.weight"].fill_(float("inf")), r"1: backbone.body.bn1.weight not finite"),
        (lambda s: s.pop("heads.depth.norm.num_batches_tracked"), "does not match"),
    ],
)
def test_tensors_that_do_not_fit(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=words) as error:
        load_model(saved)
    assert "model.safetensors" in str(error.value)


# -- other people's files ---------------------------------------------------------------------------------------------
class Payload:
    """Unpickling this would create a file."""

    def __init__(self, path, call=open):
        self.path, self.call = path, call

    def __reduce__(self):
        return (open, (str(self.path), "w")) if self.call is open else (self.call, (f"touch {self.path}",))


def test_a_forbidden_module_is_not_taken_for_damage(tmp_path):
    torch.save({"x": Payload(tmp_path / "owned", os.system)}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeFileError, match=r"evil.pth.*torch.save\(model.state_dict"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "write",
    [
        torch.save,
        lambda content, path: path.write_bytes(pickle.dumps(content)),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_content_is_not_run(tmp_path, write):
    trap, path = tmp_path / "owned", tmp_path / "evil.pth"
    write({"state_dict": {"x": torch.zeros(2)}, "extra": Payload(trap)}, path)
    with pytest.raises(UnsafeFileError, match=r"evil.pth.*torch.save\(model.state_dict"):
        read_state(path)
    assert not trap.exists()


def test_a_damaged_pth(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"x": torch.arange(1000.0)}, path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 255
    for content in (good[: len(good) // 2], b"", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"weights.pth is truncated or damaged.*again"):
            read_state(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(ValueError, match="no checkpoint at all"):
        read_state(path)


def test_weights_are_found_where_checkpoints_keep_them(tmp_path):
    path, state = tmp_path / "w.pth", OrderedDict(a=torch.ones(2), b=torch.zeros(1))
    for content in (
        state,
        {"state_dict": state, "epoch": 1},
        {"model": {"state_dict": state}},
        {"model": state},
        {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        {**state, "version": 3},
    ):
        torch.save(content, path)
        assert {name: value.tolist() for name, value in read_state(path).items()} == {"a": [1, 1], "b": [0]}
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match=r"w.pth holds no tensors by name \(found: epoch \(int\)\)"):
        read_state(path)
    torch.save({"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"w.pth: 1: a not finite"):
        read_state(path)


def test_the_report_counts_per_part_and_shortens():
    wanted = {f"backbone.{i}": torch.zeros(i) for i in range(30)} | {"heads.depth.x": torch.zeros(1)}
    report = match_report({"backbone.3": torch.zeros(3), "heads.depth.x": torch.zeros(2)}, wanted, ["backbone.fc"])
    text = str(report).splitlines()
    assert not report.full and len(report.missing) == 29
    assert text[0].startswith("backbone: matched 1, missing 29: backbone.0, ") and "and 19 more" in text[0]
    assert text[0].endswith("dropped 1: backbone.fc")
    assert text[1] == "heads.depth: matched 0, missing 0, unexpected 0, wrong shape 1: heads.depth.x (2,) for (1,)"
    assert match_report(wanted, wanted).full


# -- one base ---------------------------------------------------------------------------------------------------------
def test_experts_must_share_their_base():
    one, two, none = (
        {"base_hash": value, "tasks": [name]} for value, name in (("a" * 64, "x"), ("b" * 64, "y"), (None, "z"))
    )
    check_same_base({"first": one, "second": one})
    check_same_base([one])
    for entries in ([one, two], [one, none], [none, none]):
        with pytest.raises(ValueError, match="do not share their base"):
            check_same_base(entries)
        check_same_base(entries, allow=True)
    with pytest.raises(ValueError, match=r"depth.safetensors: aaaaaaaaaaaa, edges.safetensors: unknown"):
        check_same_base({"depth.safetensors": one, "edges.safetensors": {}})


# -- the container goes by the content --------------------------------------------------------------------------------
def test_a_model_file_under_another_suffix_keeps_its_record(tmp_path):
    """safetensors named .pth, and a torch file named .safetensors: the same answers as under their own names."""
    base, experts, _ = tiny.family()
    origin = state_hash(base.state_dict())
    save_model(tmp_path / "depth.safetensors", experts["depth"], {"base_hash": origin})
    renamed = shutil.copy(tmp_path / "depth.safetensors", tmp_path / "depth.pth")
    assert has_record(renamed) and read_metadata(renamed)["base_hash"] == origin
    assert state_hash(load_model(renamed)[0].state_dict()) == state_hash(experts["depth"].state_dict())
    torch.save(experts["depth"].state_dict(), tmp_path / "plain.safetensors")
    assert not has_record(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"plain.safetensors is not read: it is no safetensors file, as save_model"):
        read_metadata(tmp_path / "plain.safetensors")


# -- our own files are what their records say -------------------------------------------------------------------------
class Unusual(nn.Module):
    """A head with weights in parts, and names that other programs' adapters have."""

    def __init__(self, in_channels, strides, channels):
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(in_channels[-1], 4, 1))
        self.lora_a = nn.Conv2d(4, 4, 1)
        self.out = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, channels, 1))

    def forward(self, features):
        return self.out(self.lora_a(self.normed(features[-1])))


def unusual(monkeypatch, task="depth"):
    monkeypatch.setitem(HEADS.module_dict, "Unusual", Unusual)
    return MultiTaskModel(backbone(CNN), {task: {"type": "Unusual"}}, {task: tasks()[task]}, **PREPROCESSING).eval()


@pytest.mark.parametrize("name", ["model", "x-00001-of-00005"])
def test_a_head_of_any_kind_comes_back(name, tmp_path, monkeypatch):
    net, path = unusual(monkeypatch), tmp_path / f"{name}.safetensors"
    save_model(path, net)
    again, metadata = load_model(path)
    assert state_hash(again.state_dict()) == state_hash(net.state_dict()) == metadata["hash"]
    image = torch.rand(1, 3, *SIZE) * 255
    assert torch.equal(again(image)["depth"], net(image)["depth"])
    base = backbone(CNN)
    load_base(base, checkpoint=path)
    assert state_hash(base.state_dict()) == state_hash(net.backbone.state_dict())
