"""The whole set of weights of one network is read, or nothing: no part is dropped, no stand-in taken for a weight."""

import numpy as np
import pytest
import torch
from builders.pipeline_tiny import tool
from torch import nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm, spectral_norm

from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.network_entries import network_in
from symerge_dense.models.weight_files import UnsafeFileError

CONV = {"conv.weight": torch.ones(2, 3, 1, 1)}
NORM = {"weight": torch.ones(2), "bias": torch.zeros(2)}
NETWORK = {"enc.weight": torch.eye(3), "enc.bias": torch.ones(3), "out.weight": torch.ones(2, 3)}
HEAD = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.ones(2)}


# -- parts beside the network -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("norm", [NORM, {"running_mean": torch.ones(2)}, {"0.g": torch.ones(2)}])
def test_a_dict_of_vectors_beside_the_matrices_is_not_dropped(norm, wrapped):
    content = {"body": CONV, "norm": norm, "epoch": 1}
    chosen = "model.body" if wrapped else "body"
    with pytest.raises(ValueError, match=rf"parts of it: '.*norm' .*Save the whole .*--key {chosen} "):
        network_in({"model": content} if wrapped else content, "a.pth")
    assert network_in(content, "a.pth", key="body").state.keys() == CONV.keys()


@pytest.mark.parametrize("key", ["loss_head", "step_head", "opt_head", "lr_branch", "metric_head", "loss", "optimizer"])
def test_a_word_of_training_does_not_hide_weights(key):
    with pytest.raises(ValueError, match=rf"holds 2 networks: 'net'.*'{key}'.*--key net .*whole state dict"):
        network_in({"net": NETWORK, key: HEAD}, "a.pth")
    with pytest.raises(ValueError, match=r"'heads\.0'"):
        network_in({"net": NETWORK, "heads": {0: HEAD}}, "a.pth")


@pytest.mark.parametrize(
    "beside",
    [
        {"criterion": {"weight": torch.ones(5)}},
        {"loss_state": {"pos_weight": torch.ones(5, 1, 1)}, "class_names": ["a"]},
        {"optimizer_G": {"state": {0: {"exp_avg": torch.ones(2, 3)}}}},
        {"sgd": {"state": {0: {"momentum_buffer": torch.ones(2, 3)}}}},
        {"cuda_rng_state": torch.ones(3, dtype=torch.uint8), "val_metrics": {"cm": torch.ones(3, 3)}},
    ],
)
def test_training_state_is_still_no_network(beside):
    assert network_in({"net": NETWORK, **beside}, "a.pth").state.keys() == NETWORK.keys()


def test_a_confusion_matrix_beside_the_network_is_remarked():
    found = network_in({"net": NETWORK, "confusion": torch.zeros(13, 13)}, "a.pth")
    assert found.key == "net" and found.remarks == ("not read: '.' (1: confusion)",)
    with pytest.raises(ValueError, match="--key net "):
        network_in({"proj": torch.ones(4, 4), "net": NETWORK}, "a.pth")


def test_arrays_and_lists_beside_the_network(tmp_path):
    for lost in ({"head_w": np.ones(2)}, {"more": {"head.weight": np.ones(2)}}, {"head_weight": [torch.ones(2)]}):
        torch.save({"model": NETWORK, **lost}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="beside the network under 'model' there are weights"):
            read_foreign(tmp_path / "a.pth")
    torch.save({"model": NETWORK, "curve": np.ones(2), "classes": np.arange(3)}, tmp_path / "a.pth")
    assert read_foreign(tmp_path / "a.pth").remarks == ("not read: 1: curve, which are no tensors by name",)


def test_averaged_weights_without_names_are_remarked():
    found = network_in({"model": NETWORK, "ema": {"shadow_params": [torch.ones(2)], "decay": 0.9}}, "a.pth", ema=True)
    assert not found.averaged and "'ema.shadow_params' have no names, so --ema cannot" in found.remarks[0]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_single_numbers_of_training_between_the_weights(prefix):
    numbers = {name: torch.tensor(0.3) for name in ("best_loss", "best_acc", "miou", "lr")}
    kept = {f"{prefix}{name}": value for name, value in NETWORK.items()}
    found = network_in({**kept, **numbers}, "a.pth")
    assert found.state.keys() == NETWORK.keys() and "left out: best_loss, best_acc, miou, lr" in found.remarks[-1]
    assert "logit_scale" in network_in({**NETWORK, "logit_scale": torch.tensor(1.0)}, "a.pth").state


# -- quantised and reparametrised weights -----------------------------------------------------------------------------
BYTES = torch.ones(4, 4, dtype=torch.int8)


@pytest.mark.parametrize(
    "extra",
    [
        {"q.w": BYTES, "q.w_scale_factor": torch.ones(1)},
        {"q.w": BYTES.int(), "q.w_scale_factor": torch.ones(1)},
        {"q.kernel_q": BYTES.short(), "q.alpha": torch.ones(1)},
        {"q.weight_int8": BYTES},
        {"q.W": BYTES.to(torch.uint8), "q.S": torch.ones(1)},
        {"q.any": torch.ones(4, 4).to(torch.float8_e5m2)},
        {"q.weight": torch.ones(4, 4).half(), "q.weight_scale": torch.ones(1)},
        {"q.weight": torch.ones(4, 4).bfloat16(), "q.scale_weight": torch.ones(1)},
    ],
)
def test_quantised_weights_under_any_name(extra):
    with pytest.raises(ValueError, match=r"holds quantised weights .*q\..*before quantisation"):
        network_in({**NETWORK, **extra}, "a.pth")


def test_buffers_of_integers_are_not_quantised():
    buffers = {
        "a.relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
        "a.logit_scale": torch.ones(2),
        "a.attn_mask": torch.ones(2, 2, dtype=torch.uint8),
        "a.seen": torch.ones(2, 2, dtype=torch.bool),
        "n.num_batches_tracked": torch.tensor(3),
        "e.position_ids": torch.arange(4)[None],
    }
    assert network_in({**NETWORK, **buffers}, "a.pth").state.keys() == {*NETWORK, *buffers}


def layer(kind):
    one = nn.Linear(3, 2)
    return {
        "prune": lambda: prune.l1_unstructured(one, "weight", 0.5),
        "spectral": lambda: spectral_norm(one),
        "old": lambda: nn.utils.weight_norm(one),
        "new": lambda: parametrizations.weight_norm(one),
        "orthogonal": lambda: parametrizations.orthogonal(one),
    }[kind]()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("prune", r"prune\.remove"),
        ("spectral", "remove_spectral_norm"),
        ("old", "remove_weight_norm"),
        ("new", "remove_parametrizations"),
        ("orthogonal", "remove_parametrizations"),
    ],
)
def test_weights_in_parts_are_refused_until_they_are_folded(kind, remedy):
    one = layer(kind)
    with pytest.raises(ValueError, match=f"holds weights in parts.*{remedy}"):
        network_in(nn.Sequential(one).state_dict(), "a.pth")
    if kind in ("prune", "old"):  # the remedy works
        prune.remove(one, "weight") if kind == "prune" else remove_weight_norm(one)
        assert network_in(nn.Sequential(one).state_dict(), "a.pth").state.keys() == {"0.weight", "0.bias"}


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [0, 1])
def test_old_pickle_protocols_are_named(protocol, zipped, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(NETWORK, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=rf"saved with pickle protocol {protocol}.*save it again by torch\.save"):
        read_foreign(path)


def merge(folder, base, **experts):
    paths = {name: folder / f"{name}.pth" for name in ("base", *experts)}
    for name, state in {"base": base, **experts}.items():
        torch.save(state, paths[name])
    given = [f"{name}={paths[name]}" for name in experts]
    out = folder / "out.safetensors"
    return tool("merge.py", "--method", "average", "--base", paths["base"], "--experts", *given, "--out", out), out


def test_inputs_of_equal_weights_are_warned_of(tmp_path, capsys):
    more = {name: value + 1 for name, value in NETWORK.items()}
    assert merge(tmp_path, NETWORK, a=more, b=more, c=NETWORK)[0] == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert "a and b have equal weights" in told and "base and c have equal weights" in told
    assert "base and a" not in told and "a and c" not in told


def test_a_merge_of_a_part_writes_nothing(tmp_path, capsys):
    part = {"body": CONV, "norm": NORM}
    code, out = merge(tmp_path, part, a=part)
    assert code == 2 and "whole network's state dict" in capsys.readouterr().err and not out.exists()


def test_other_float_types_have_a_remedy(tmp_path, capsys):
    code, out = merge(tmp_path, NETWORK, a={name: value.bfloat16() for name, value in NETWORK.items()})
    assert code == 2 and ".float()" in capsys.readouterr().err and not out.exists()
