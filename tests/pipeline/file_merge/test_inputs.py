"""What is merged is the whole network of every input, the same from every container, key and prefix; else nothing."""

import json

import pytest
import torch
from builders import tiny
from builders.merge_checkpoints import Files, same, write_files
from builders.pipeline_tiny import tool
from safetensors.torch import load_file, save_file
from torch import nn

from symerge_dense import merge
from symerge_dense.merging.run import merge_state
from symerge_dense.models.checkpoint import load_model, save_model, state_hash
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import HEADS, MERGERS

VARIANTS = {
    "model_state_dict.pth": lambda s: {"model_state_dict": s, "epoch": 3, "best_loss": torch.tensor(0.3)},
    "net.pt": lambda s: {"net": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{}]}},
    "params.bin": lambda s: {"checkpoint": {"params": s}, "step": torch.tensor(4)},
    "ema.ckpt": lambda s: {"state_dict": s, "state_dict_ema": {name: value * 2 for name, value in s.items()}},
    "module.pth": lambda s: {f"module.{name}": value for name, value in s.items()},
    "module.safetensors": lambda s: {f"module.{name}": value for name, value in s.items()},
    "compiled.safetensors": lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    "stacked.pth": lambda s: {"model": {f"module._orig_mod.{name}": value for name, value in s.items()}},
    "lightning.ckpt": lambda s: {"state_dict": {f"model.{name}": value for name, value in s.items()}, "epoch": 1},
    "lightning.safetensors": lambda s: {f"model.module.{name}": value for name, value in s.items()},
}


@pytest.fixture
def files(tmp_path) -> Files:
    return write_files(tmp_path)


def write(content, path):
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def arguments(files, **changed):
    """Words of a merge where some inputs are other files."""
    paths = {name: changed.get(name, files.folder / f"{name}.safetensors") for name in ("base", *files.experts)}
    base = paths.pop("base")
    experts = [f"{name}={path}" for name, path in paths.items()]
    return ["--method", "ties", "--base", base, "--experts", *experts, "--out", files.out]


@pytest.mark.parametrize("side", ["base", "a"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_content_gives_the_same_merge(files, variant, side):
    state = files.base if side == "base" else files.experts[side]
    path = write(VARIANTS[variant](state), files.folder / variant)
    assert tool("merge.py", *arguments(files, **{side: path})) == 0
    expected = merge_state(MERGERS["ties"](), files.base, files.experts)
    prefix = "model.module." if variant == "lightning.safetensors" else "model."
    base_keeps_its_names = side == "base" and "lightning" in variant
    found = load_file(files.out)
    assert same({name.removeprefix(prefix) if base_keeps_its_names else name: v for name, v in found.items()}, expected)
    assert not base_keeps_its_names or all(name.startswith(prefix) for name in found)


@pytest.mark.parametrize("side", ["base", "a"])
def test_the_content_of_shards_and_of_pickle_protocol_4(files, side, capsys):
    state = files.base if side == "base" else files.experts[side]
    folder, four = files.folder / "shards", files.folder / "four.pth"
    folder.mkdir()
    items = list(state.items())
    for number, part in enumerate((items[:4], items[4:]), 1):
        save_file(dict(part), folder / f"model-0000{number}-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 + (row >= 4)}-of-00002.safetensors" for row, (name, _) in enumerate(items)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save(state, four, pickle_protocol=4)
    expected = merge_state(MERGERS["ties"](), files.base, files.experts)
    for path in (folder, four):
        assert tool("merge.py", *arguments(files, **{side: path}), "--overwrite") == 0
        assert same(load_file(files.out), expected)
    files.out.unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert tool("merge.py", *arguments(files, **{side: folder})) == 2
    assert "names shards that are missing: 1: model-00002" in capsys.readouterr().err and not files.out.exists()


BAD = {
    "no network": ({"epoch": 3, "best_loss": torch.tensor(0.3)}, "holds no tensors by name"),
    "two networks": ({"student": {"w": torch.eye(2)}, "teacher": {"w": torch.eye(2)}}, "--key student"),
    "quantised": ({"w.weight": torch.ones(2, 2).char(), "w.scale": torch.ones(1)}, "before quantisation"),
    "adapter": ({"q.lora_A.weight": torch.eye(2), "q.lora_B.weight": torch.eye(2)}, "merge_and_unload"),
    "difference": ({"bn.running_var": -torch.ones(2), "w": torch.eye(2)}, "Add it to its base"),
    "list": ({"w": torch.eye(2), "more": [torch.eye(2)]}, "a part of a network is not read"),
}


@pytest.mark.parametrize("side", ["base", "a"])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_network_is_refused(files, kind, side, capsys):
    content, words = BAD[kind]
    path = write(content, files.folder / "bad.pth")
    assert tool("merge.py", *arguments(files, **{side: path})) == 2
    assert words in capsys.readouterr().err and not files.out.exists()


def test_a_stripped_single_name_loses_nothing(tmp_path):
    state = {"w": torch.eye(2), "module.w": torch.ones(2, 2), "module.enc.weight": torch.ones(3, 3)}
    for container in ("base.safetensors", "a.pth"):
        write(state, tmp_path / container)
    words = ["--method", "average", "--base", tmp_path / "base.safetensors", "--experts", f"a={tmp_path / 'a.pth'}"]
    assert tool("merge.py", *words, "--out", tmp_path / "out.safetensors") == 0
    assert same(load_file(tmp_path / "out.safetensors"), state)


def test_keys_are_given_for_all_or_for_each(files, capsys):
    both = {"student": files.experts["a"], "teacher": files.experts["b"]}
    path = write(both, files.folder / "both.pth")
    words = arguments(files, a=path, b=path)
    expected = merge_state(MERGERS["ties"](), files.base, files.experts)
    assert tool("merge.py", *words, "--key", "a=student", "b=teacher") == 0
    assert same(load_file(files.out), expected)
    base = write({"student": files.base, "teacher": files.base}, files.folder / "origin.pth")
    assert tool("merge.py", *arguments(files, base=base, a=path, b=path), "--key", "student", "--overwrite") == 0
    assert tool("merge.py", *words, "--key", "a=student", "c=teacher", "--overwrite") == 2
    assert "--key c=...: there is no such input; there are base, a, b" in capsys.readouterr().err
    assert tool("merge.py", *words, "--key", "a=student", "teacher", "--overwrite") == 2
    assert "'teacher' is not NAME=KEY" in capsys.readouterr().err


def test_averaged_weights_on_request(files, capsys):
    content = {"state_dict": files.base, "model_ema": files.experts["a"]}
    path = write(content, files.folder / "run.pth")
    assert tool("merge.py", *arguments(files, a=path), "--ema") == 0
    assert same(load_file(files.out), merge_state(MERGERS["ties"](), files.base, files.experts))
    assert tool("merge.py", *arguments(files), "--ema", "--overwrite") == 2
    assert "no input has any; leave it out" in capsys.readouterr().err
    assert tool("merge.py", *arguments(files, a=path), "--overwrite") == 0
    assert "averaged (EMA) weights under 'model_ema' are not used; --ema" in capsys.readouterr().out


def test_experts_that_do_not_fit_show_the_names_that_are_there(files, capsys):
    path = write({f"net.{name}": value for name, value in files.experts["a"].items()}, files.folder / "odd.pth")
    assert tool("merge.py", *arguments(files, a=path)) == 2
    assert "a holds 9: net.conv.weight, net.conv.bias" in capsys.readouterr().err


def test_a_prefix_may_name_the_wrapper(files):
    wrapped = {f"module.encoder.{name}": value for name, value in files.base.items()}
    paths = {
        name: write({f"module.encoder.{k}": v for k, v in state.items()}, files.folder / f"{name}.pth")
        for name, state in files.experts.items()
    }
    base = write(wrapped, files.folder / "base.pth")
    for prefix in ("module.encoder.", "encoder."):
        assert tool("merge.py", *arguments(files, base=base, **paths), "--prefix", prefix, "--overwrite") == 0
        assert len(load_file(files.out)) == len(files.base)


# -- models of this package -------------------------------------------------------------------------------------------
@pytest.fixture
def models(tmp_path):
    """(folder, base, experts): model files, and the base as a plain file of timm's names."""
    base, experts, _ = tiny.family()
    for task, expert in experts.items():
        save_model(tmp_path / f"{task}.safetensors", expert)
    torch.save({"state_dict": base.body.state_dict(), "epoch": 1}, tmp_path / "timm.pth")
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, tmp_path / "base.safetensors")
    return tmp_path, base, experts


def words_of(folder, experts, base="base.safetensors"):
    named = [f"{task}={folder / task}.safetensors" for task in experts]
    return ["--method", "ties", "--base", folder / base, "--experts", *named, "--out", folder / "out.safetensors"]


def test_the_base_may_be_any_file_that_fits_the_backbone(models):
    folder, _, experts = models
    found = []
    for base in ("base.safetensors", "timm.pth"):
        assert tool("merge.py", *words_of(folder, experts, base), "--overwrite") == 0
        found.append(load_file(folder / "out.safetensors"))
    assert same(*found) and all(name.startswith("backbone.body.") for name in found[0])


def test_heads_make_one_model(models, capsys):
    folder, base, experts = models
    assert tool("merge.py", *words_of(folder, experts), "--heads") == 0
    assert "one model of" in capsys.readouterr().out
    model, record = load_model(folder / "out.safetensors")
    assert set(model.tasks) == set(experts) and record["merge"]["method"] == "ties" and record["base_hash"]
    states = {task: expert.backbone.state_dict() for task, expert in experts.items()}
    from symerge_dense.merging.tensor_specs import tensor_specs

    assert same(
        model.backbone.state_dict(), merge_state(MERGERS["ties"](), base.state_dict(), states, tensor_specs(base))
    )
    for task, expert in experts.items():
        assert same(model.heads[task].state_dict(), expert.heads[task].state_dict())


def test_heads_need_models(files, models, capsys):
    assert tool("merge.py", *files.arguments("average", "--heads")) == 2
    assert "is no model of this package, so its head is not known; make one of it by symerge import-expert" in (
        capsys.readouterr().err
    )
    folder, _, experts = models
    task = next(iter(experts))
    twice = ["--experts", *(f"{name}={folder / task}.safetensors" for name in "xy")]
    assert tool("merge.py", *words_of(folder, experts), *twice, "--heads", "--overwrite") == 2
    assert f"two experts serve '{task}'" in capsys.readouterr().err
    assert tool("merge.py", *words_of(folder, experts), "--heads", "--prefix", "backbone.") == 2
    assert "leave out --packed, --task and --prefix" in capsys.readouterr().err


def test_the_base_of_renamed_experts_is_checked_in_a_merge(tmp_path):
    base, experts, _ = tiny.family()
    state = {f"backbone.{name}": value for name, value in base.state_dict().items()}
    torch.save(state, tmp_path / "base.safetensors")
    other = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    torch.save(other, tmp_path / "other.safetensors")
    files = {}
    for task in ("depth", "segmentation"):
        save_model(tmp_path / f"{task}.safetensors", experts[task], {"base_hash": state_hash(base.state_dict())})
        files[task] = (tmp_path / f"{task}.safetensors").rename(tmp_path / f"{task}.pth")
    assert merge("average", tmp_path / "base.safetensors", files)
    with pytest.raises(ValueError, match="base"):
        merge("average", tmp_path / "other.safetensors", files)


class WeightNorm(nn.Module):
    def __init__(self, in_channels, strides, channels):
        super().__init__()
        self.out = nn.utils.parametrizations.weight_norm(nn.Conv2d(in_channels[-1], channels, 1))

    def forward(self, features):
        return self.out(features[-1])


def test_a_head_with_weights_in_parts_is_no_matter_where_backbones_are_merged(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(HEADS.module_dict, "WeightNorm", WeightNorm)
    base, usual, assembled = tiny.family()
    experts = {
        task: MultiTaskModel(one.backbone, {task: {"type": "WeightNorm"}}, one.tasks, **tiny.PREPROCESSING)
        for task, one in usual.items()
    }
    save_model(tmp_path / "base.safetensors", assembled)
    for task, expert in experts.items():
        save_model(tmp_path / f"{task}.safetensors", expert)
    words = ["--method", "average", "--base", tmp_path / "base.safetensors", "--out", tmp_path / "out.safetensors"]
    words += ["--experts", *(f"{task}={tmp_path / task}.safetensors" for task in experts)]
    assert tool("merge.py", *words, "--heads") == 0
    model, _ = load_model(tmp_path / "out.safetensors")
    expected = merge_state(
        MERGERS["average"](), base.state_dict(), {t: e.backbone.state_dict() for t, e in experts.items()}
    )
    assert same(model.backbone.state_dict(), expected)
    for task, expert in experts.items():
        assert same(model.heads[task].state_dict(), expert.heads[task].state_dict())
    inside = merge("average", base, experts)
    assert same(inside.state_dict(), expected)
    capsys.readouterr()
    assert tool("merge.py", *words, "--overwrite", "--prefix", "") == 2
    assert "remove_parametrizations(layer, 'weight')" in capsys.readouterr().err
