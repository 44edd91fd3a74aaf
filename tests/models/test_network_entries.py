"""What is read of a file is the whole set of weights of one network, whatever holds it; else the file is refused."""

import argparse
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.weight_files import CorruptFileError, UnsafeFileError

WEIGHTS = {"enc.weight": torch.arange(6.0).reshape(2, 3), "enc.bias": torch.ones(2), "out.weight": torch.eye(2)}
OTHER = {name: value + 1 for name, value in WEIGHTS.items()}
KEYS = ("model_state_dict", "state_dict", "model", "net", "network", "params", "weights", "module", "backbone")


def same(found, expected=None):
    expected = WEIGHTS if expected is None else expected
    return found.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in found.items())


def read(content, folder, name="file.pth", mapped=False, **options):
    torch.save(content, folder / name)
    return read_foreign(folder / name, mapped=mapped, **options)


def optimizer():
    """State of a real optimizer that has made a step."""
    layer = nn.Linear(3, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    adam.step()
    return adam.state_dict()


def prefixed(prefix, state=None):
    return {f"{prefix}{name}": value for name, value in (state or WEIGHTS).items()}


BESIDE = {
    "epoch": 3,
    "best_loss": torch.tensor(0.3),
    "optimizer": optimizer(),
    "optimizer_state_dict": optimizer(),
    "optim": {"state": {"enc.weight": {"exp_avg": torch.ones(2, 3)}}},
    "lr_scheduler": {"last": torch.ones(2, 2)},
    "scaler": {"scale": torch.tensor(2.0)},
    "rng_state": torch.get_rng_state(),
    "loss": torch.tensor(1.5),
    "metrics": {"confusion": torch.ones(3, 3)},
    "args": argparse.Namespace(lr=1e-3),
    "history": [1.0, 2.0],
}


# -- under keys -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_the_network_is_found_under_any_key_beside_training_state(key, mapped, tmp_path):
    found = read({key: WEIGHTS, **BESIDE}, tmp_path, mapped=mapped)
    assert same(found.state) and found.nested and found.key == key


@pytest.mark.parametrize("path", [("model", "state_dict"), ("checkpoint", "net", "params"), ("state_dict", "model")])
def test_the_network_is_found_deeper(path, tmp_path):
    content = WEIGHTS
    for key in reversed(path):
        content = {key: content, "epoch": 1}
    found = read(content, tmp_path)
    assert same(found.state) and found.key == ".".join(path)


def test_a_flat_file_with_plain_entries(tmp_path):
    found = read({**WEIGHTS, "version": 3, "name": "a", "optimizer": optimizer()}, tmp_path)
    assert same(found.state) and not found.nested


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "best_loss": torch.tensor(0.3)},
        {"optimizer": optimizer()},
        {"optimizer_state_dict": optimizer(), "epoch": 3, "loss": torch.tensor(1.0)},
        optimizer(),
        {"state": {"enc.weight": torch.ones(2, 3)}, "param_groups": []},
        [torch.ones(2)],
        {"weights": [torch.ones(2, 2)]},
        torch.ones(2, 2),
        {0: torch.ones(2, 2)},
        {},
        None,
    ],
)
def test_what_holds_no_network_is_refused_and_shown(content, tmp_path):
    with pytest.raises(
        ValueError, match=r"file\.pth holds no tensors by name \(found: .*torch\.save\(model\.state_dict"
    ):
        read(content, tmp_path)


def test_optimizer_state_is_never_taken_and_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"found: epoch \(int\), optimizer \(optimizer state\), loss \(one number\)"):
        read({"epoch": 1, "optimizer": optimizer(), "loss": torch.tensor(1.0)}, tmp_path)


# -- several networks -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", [("generator", "discriminator"), ("student", "teacher"), ("G", "D"), ("a", "b")])
def test_of_two_networks_one_must_be_named(pair, tmp_path):
    content = {pair[0]: WEIGHTS, pair[1]: OTHER, "epoch": 3}
    with pytest.raises(ValueError) as error:
        read(content, tmp_path)
    text = str(error.value)
    assert "holds 2 networks" in text and f"--key {pair[0]}" in text
    assert all(f"{name!r} with 3: enc.weight, enc.bias, out.weight" in text for name in pair)
    assert same(read(content, tmp_path, key=pair[1]).state, OTHER)


@pytest.mark.parametrize("words", [("student", "teacher"), ("generator", "discriminator"), ("netG", "netD")])
@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "module.model.", "model._orig_mod."])
@pytest.mark.parametrize("container", ["flat.pth", "nested.ckpt", "flat.safetensors"])
def test_of_two_networks_in_one_state_dict_one_must_be_named(words, wrapper, container, tmp_path):
    state = {**prefixed(f"{wrapper}{words[0]}."), **prefixed(f"{wrapper}{words[1]}.", OTHER)}
    if container.endswith("safetensors"):
        save_file(state, tmp_path / container)
    else:
        torch.save({"state_dict": state} if "nested" in container else state, tmp_path / container)
    with pytest.raises(ValueError, match=rf"holds 2 networks.*--key ({words[0]}|{words[1]}) "):
        read_foreign(tmp_path / container)
    assert same(read_foreign(tmp_path / container, key=words[1]).state, OTHER)


def test_a_network_beside_another_at_the_top_level(tmp_path):
    state = {**WEIGHTS, **prefixed("teacher.", OTHER)}
    with pytest.raises(ValueError, match=r"holds 2 networks: 'teacher'.*'\.' with 3"):
        read(state, tmp_path)
    assert same(read(state, tmp_path, key=".").state)
    assert same(read(state, tmp_path, key="teacher").state, OTHER)
    nested = {**WEIGHTS, "teacher": OTHER}
    assert same(read(nested, tmp_path, key=".").state)
    assert same(read({"state_dict": state}, tmp_path, key="state_dict.teacher").state, OTHER)


def test_a_half_in_a_dict_of_its_own_is_not_left_out(tmp_path):
    half = {"enc.weight": WEIGHTS["enc.weight"], "head": {"weight": torch.ones(2, 2)}}
    with pytest.raises(ValueError, match=r"holds 2 networks: '\.' with 1: enc\.weight; 'head' with 1: weight"):
        read(half, tmp_path)


def test_an_unknown_key_shows_those_that_are_there(tmp_path):
    with pytest.raises(ValueError, match=r"unknown key 'teachr'. Did you mean 'teacher'.*Known: .*student"):
        read({"student": WEIGHTS, "teacher": OTHER}, tmp_path, key="teachr")


def test_parts_of_one_network_need_no_key(tmp_path):
    state = {**prefixed("encoder."), **prefixed("decoders.depth."), **prefixed("decoders.normal.")}
    assert same(read(state, tmp_path).state, state)


# -- averaged weights -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema", "swa_model"])
@pytest.mark.parametrize("inside", [False, True])
def test_averaged_weights_are_taken_on_request_and_remarked_otherwise(name, inside, tmp_path):
    content = {"state_dict": WEIGHTS, name: {"module": OTHER} if inside else OTHER, "epoch": 3}
    plain, averaged = read(content, tmp_path), read(content, tmp_path, ema=True)
    assert same(plain.state) and same(averaged.state, OTHER) and not averaged.remarks
    assert any(name in remark and "--ema" in remark for remark in plain.remarks)


@pytest.mark.parametrize("part", ["ema", "model_ema", "ema_model"])
def test_averaged_weights_in_the_same_state_dict(part, tmp_path):
    for plain in ("", "model."):
        state = {**prefixed(plain), **prefixed(f"{part}.", OTHER)}
        found = read({"state_dict": state}, tmp_path)
        assert same({name.removeprefix("model."): value for name, value in found.state.items()})
        assert "--ema" in found.remarks[0]
        assert same(read({"state_dict": state}, tmp_path, ema=True).state, OTHER)


def test_only_averaged_weights_need_no_request(tmp_path):
    assert same(read({"ema": WEIGHTS, "epoch": 1}, tmp_path).state)


def test_pytorchs_averaged_model_loses_its_counter(tmp_path):
    layer = nn.Linear(3, 2)
    found = read(AveragedModel(layer).state_dict(), tmp_path)
    assert same(found.state, layer.state_dict()) and "n_averaged" in found.remarks[0]


# -- prefixes ---------------------------------------------------------------------------------------------------------
CONTAINERS = {
    "zip.pth": lambda state, path: torch.save(state, path),
    "old.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "four.bin": lambda state, path: torch.save(state, path, pickle_protocol=4),
    "five.pt": lambda state, path: torch.save(state, path, pickle_protocol=5),
    "old_four.pt": lambda state, path: torch.save(state, path, pickle_protocol=4, _use_new_zipfile_serialization=False),
    "nested.ckpt": lambda state, path: torch.save({"state_dict": OrderedDict(state), "epoch": 1}, path),
    "plain.safetensors": lambda state, path: save_file(state, path),
    "misnamed.bin": lambda state, path: save_file(state, path),
    "misnamed.safetensors": lambda state, path: torch.save(state, path),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("container", CONTAINERS)
def test_wrappers_are_taken_off_in_every_container(container, prefix, mapped, tmp_path):
    CONTAINERS[container](prefixed(prefix), tmp_path / container)
    found = read_foreign(tmp_path / container, mapped=mapped)
    assert same(found.state) and found.wrapper == prefix


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_prefix_of_single_names_stays(container, tmp_path):
    state = {"w": torch.ones(2), "module.w": torch.zeros(2), "module.enc.weight": torch.eye(2)}
    CONTAINERS[container](state, tmp_path / container)
    assert same(read_foreign(tmp_path / container).state, state)


# -- quantised, adapters, differences, parts --------------------------------------------------------------------------
INTEGERS = torch.ones(4, 4, dtype=torch.int8)


@pytest.mark.parametrize(
    "extra",
    [
        {"q.weight": INTEGERS, "q.scale": torch.ones(1)},
        {"q.weight": INTEGERS, "q.weight_scale": torch.ones(4, 1)},
        {"q.weight": INTEGERS},
        {"q.weight": INTEGERS.int(), "q.scales": torch.ones(4)},
        {"q.qweight": INTEGERS.int(), "q.qzeros": INTEGERS.int(), "q.scales": torch.ones(4)},
        {"q.weight": INTEGERS.to(torch.uint8), "q.weight.absmax": torch.ones(4)},
        {"q.packed": INTEGERS.to(torch.uint8), "q.scale": torch.ones(4)},
        {"q.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "q.weight_scale_inv": torch.ones(1)},
    ],
)
@pytest.mark.parametrize("container", ["file.pth", "file.safetensors"])
def test_quantised_weights_are_no_counters(extra, container, tmp_path):
    state = {**WEIGHTS, **extra}
    save_file(state, tmp_path / container) if "safe" in container else torch.save(
        {"model": state}, tmp_path / container
    )
    with pytest.raises(ValueError, match=r"holds quantised weights .*q\..*before quantisation"):
        read_foreign(tmp_path / container)


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_own_quantised_tensors(tmp_path):
    quantised = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match="holds quantised weights"):
        read({**WEIGHTS, "q.weight": quantised}, tmp_path)


def test_integers_that_are_no_weights_stay(tmp_path):
    state = {
        **WEIGHTS,
        "attn.relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
        "attn.logit_scale": torch.ones(2),
        "norm.num_batches_tracked": torch.tensor(3),
        "mask": torch.tensor([[True, False]]),
        "position_ids": torch.arange(5)[None],
    }
    assert same(read(state, tmp_path).state, state)


@pytest.mark.parametrize("full", [False, True])
def test_adapters_are_named(full, tmp_path):
    state = {"base_model.model.q.lora_A.weight": torch.ones(2, 8), "base_model.model.q.lora_B.weight": torch.ones(8, 2)}
    words = "holds adapters .LoRA. that are not folded in" if full else "is an adapter .LoRA., not a network"
    with pytest.raises(ValueError, match=f"{words}.*merge_and_unload"):
        read({**state, **(WEIGHTS if full else {})}, tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        prefixed("delta."),
        prefixed("task_vector."),
        {**WEIGHTS, "bn.running_var": torch.tensor([0.1, -0.1])},
    ],
)
def test_differences_are_named(state, tmp_path):
    with pytest.raises(ValueError, match=r"is the difference of two networks.*Add it to its base"):
        read(state, tmp_path)


@pytest.mark.parametrize(
    "lost", [{"bias": np.ones(2)}, {"list": [torch.ones(2)]}, {5: torch.ones(2)}], ids=["array", "list", "number"]
)
def test_numbers_that_would_be_lost_are_refused(lost, tmp_path):
    for content in ({**WEIGHTS, **lost}, {"model": {**WEIGHTS, **lost}, "epoch": 1}):
        with pytest.raises(ValueError, match=r"a part of a network is not read"):
            read(content, tmp_path)


def test_numbers_beside_the_network_are_not_of_it(tmp_path):
    found = read({"model": WEIGHTS, "classes": np.arange(3), "mean": torch.ones(3), "ids": [torch.ones(2)]}, tmp_path)
    assert same(found.state) and found.remarks == ("not read: '.' (1: mean)",)


# -- shards -----------------------------------------------------------------------------------------------------------
def write_shards(folder, suffix=".safetensors", index=True, count=3):
    """A network over ``count`` numbered shards, as Hugging Face writes it."""
    names, files = list(WEIGHTS), {}
    for number in range(count):
        stem = "model" if suffix == ".safetensors" else "pytorch_model"
        file = f"{stem}-{number + 1:05}-of-{count:05}{suffix}"
        part = {f"module.{name}": WEIGHTS[name] for name in names[number::count]}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
        files |= dict.fromkeys(part, file)
    if index:
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def edit_index(folder, change):
    (path,) = folder.glob("*.index.json")
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth"])
def test_shards_are_one_network(suffix, index, tmp_path):
    write_shards(tmp_path, suffix, index)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / f"._model-00001-of-00003{suffix}").write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    assert same(read_foreign(tmp_path).state)
    if index:
        assert same(read_foreign(next(tmp_path.glob("*.index.json"))).state)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_shard_that_is_missing(suffix, index, number, tmp_path):
    write_shards(tmp_path, suffix, index)
    next(tmp_path.glob(f"*-0000{number}-of*")).unlink()
    with pytest.raises(ValueError, match=r"half a network is not read\. Copy them, too"):
        read_foreign(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("module.enc.bias"), "does not name 1: model-00002-of-00003"),
        (lambda files: files.update({"module.more": "model-00001-of-00003.safetensors"}), "index and shards differ"),
        (lambda files: files.update({"module.enc.bias": "model-00001-of-00003.safetensors"}), "does not name"),
        (lambda files: files.update({"module.enc.bias": "../model.safetensors"}), "no index of shards"),
        (lambda files: files.clear(), "no index of shards"),
    ],
)
def test_an_index_that_does_not_fit(change, words, tmp_path):
    write_shards(tmp_path)
    edit_index(tmp_path, change)
    with pytest.raises(ValueError, match=words):
        read_foreign(tmp_path)


def test_an_index_that_is_damaged(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[")
    with pytest.raises(CorruptFileError, match="is no index of shards"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_tensor_in_two_shards(suffix, tmp_path):
    for name in ("a-00001-of-00002", "a-00002-of-00002"):
        path = tmp_path / f"{name}{suffix}"
        save_file(WEIGHTS, path) if suffix == ".safetensors" else torch.save(WEIGHTS, path)
    with pytest.raises(ValueError, match=r"3: enc\.\w+, enc\.\w+, out\.weight are in two files"):
        read_foreign(tmp_path)


def test_one_shard_alone_is_no_network(tmp_path):
    write_shards(tmp_path)
    with pytest.raises(ValueError, match=r"is shard 2 of 3, a part of a network; give the folder"):
        read_foreign(tmp_path / "model-00002-of-00003.safetensors")


def test_a_folder_of_several_checkpoints_is_no_network(tmp_path):
    for name in ("epoch_1.pth", "epoch_2.pth"):
        torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(ValueError, match=r"may be several checkpoints; name one"):
        read_foreign(tmp_path)
    write_shards(tmp_path, index=False)
    save_file(OTHER, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"beside other files .*name one"):
        read_foreign(tmp_path)


def test_an_empty_folder_shows_what_is_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds no \.safetensors file.*It holds 1: config\.json"):
        read_foreign(tmp_path)


# -- pickles ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_pickle_protocol_is_read_alike(protocol, zipped, tmp_path):
    tied = WEIGHTS["enc.weight"]
    content = {
        "model": OrderedDict(
            WEIGHTS, tied=tied, view=tied.t(), half=torch.ones(2).half(), own=nn.Parameter(torch.eye(2))
        ),
        "args": argparse.Namespace(a=1, b={"x": {1, 2}}, c=frozenset({3}), d=b"bytes", e=np.float64(2)),
        "optimizer": optimizer(),
        "big": 10**30,
        "text": "ü" * 300,
    }
    path = tmp_path / "file.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert same(read_foreign(path).state, {name: value.detach() for name, value in content["model"].items()})


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_no_protocol_runs_code(protocol, zipped, tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"model": WEIGHTS, "x": Runs()}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"the pickled object exec"):
        read_foreign(path)
