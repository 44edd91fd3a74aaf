"""Checkpoints with foreign objects are read without running or needing foreign code; other objects are refused."""

import argparse
import collections
import datetime
import os
import pathlib
import subprocess
from collections import OrderedDict

import numpy as np
import pytest
import torch
from builders.foreign_networks import plant
from builders.prepared_python import ROOT, Python
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import UnsafeFileError
from symerge_dense.models.foreign_files import HARMLESS, Inert, InertArray, read_foreign
from symerge_dense.models.weight_files import CorruptFileError, read_plain

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def read(content, folder):
    torch.save(content, folder / "file.pth")
    return read_foreign(folder / "file.pth")


def is_weights(state):
    return state.keys() == WEIGHTS.keys() and all(torch.equal(value, WEIGHTS[name]) for name, value in state.items())


# -- what is harmless -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(lr=1e-4, root=pathlib.Path("data"), betas=(0.9, 0.999)),
        pathlib.PurePosixPath("/data/nyuv2"),
        pathlib.PureWindowsPath("C:/data"),
        np.float64(0.5),
        np.int64(3),
        np.bool_(True),
        np.arange(3.0),
        np.array(["a"]),
        np.dtype("float32"),
        collections.defaultdict(list, a=[1]),
        collections.deque([1, 2], maxlen=5),
        OrderedDict(a=1),
        {1, 2},
        frozenset({3}),
        ConfigDict(model={"type": "EncoderDecoder", "head": [{"a": 1}]}),
        datetime.timedelta(seconds=3),
        slice(1, 2),
        torch.__version__,
        torch.Size([1, 2]),
        torch.float16,
        10**30,
        b"bytes",
        None,
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_harmless_objects_beside_the_weights(extra, tmp_path):
    found = read(
        {"state_dict": WEIGHTS, "extra": extra, "hyper_parameters": {"options": [extra, {"deep": extra}]}}, tmp_path
    )
    assert is_weights(found.state) and found.nested and found.meta == {}


ATTRIBUTES = [name for stand_in, name in HARMLESS if name.endswith("AttributeDict")]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_lightning_file(name, tmp_path, monkeypatch):
    """hparams are an AttributeDict, whose class itself is kept beside it."""
    cls = plant(monkeypatch, name, dict)
    content = {
        "state_dict": WEIGHTS,
        "epoch": 3,
        "hyper_parameters": cls(lr=1e-4, args=argparse.Namespace(a=1)),
        "hparams_type": cls,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "callbacks": {"ModelCheckpoint": {"best_model_path": pathlib.Path("x"), "best_k": {"p": torch.ones(1)}}},
    }
    assert is_weights(read(content, tmp_path).state)


def test_an_omegaconf_object(tmp_path, monkeypatch):
    config = plant(monkeypatch, "omegaconf.dictconfig.DictConfig")()
    node, data = (plant(monkeypatch, f"omegaconf.{name}")() for name in ("nodes.AnyNode", "base.ContainerMetadata"))
    data.ref_type, data.object_type, data.cache = dict, int, collections.defaultdict(dict)
    config.content, config.metadata = {"lr": node}, data
    assert is_weights(read({"state_dict": WEIGHTS, "hyper_parameters": config}, tmp_path).state)


def test_an_mmengine_file(tmp_path):
    """With the history of real logged scalars, as every checkpoint of mmengine's Runner has it."""
    hub = MessageHub.get_instance("foreign-file")
    for value in (1.0, 0.5):
        hub.update_scalar("train/loss", value)
    hub.update_info("epoch", np.int64(3))
    content = {
        "meta": {"cfg": "a = 1", "epoch": 3, "dataset_meta": {"palette": np.zeros((2, 3))}},
        "state_dict": WEIGHTS,
        "message_hub": hub.state_dict(),
        "optimizer": {"lr": np.float64(1)},
    }
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UnsafeFileError):
        read_plain(tmp_path / "file.pth")  # what a plain reader has to say
    found = read_foreign(tmp_path / "file.pth")
    assert is_weights(found.state) and found.meta["cfg"] == "a = 1"


@pytest.mark.parametrize(
    "content", [WEIGHTS, OrderedDict(WEIGHTS), {f"module.{name}": value for name, value in WEIGHTS.items()}]
)
def test_a_plain_state_dict(content, tmp_path):
    found = read(content, tmp_path)
    assert is_weights(found.state) and not found.nested


def test_a_base_may_be_a_foreign_file(tmp_path):
    """LibMTL, FusionBench and OpenMMLab keep the shared pretrained weights in files of whole networks."""
    spec = {"name": "resnet10t", "channels": (8, 16, 24, 32), "stem_width": 8}
    source = TimmBackbone(**spec)
    state = {name.replace("body.", "encoder."): value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(a=1)}, tmp_path / "base.ckpt")
    target = TimmBackbone(**spec)
    load_base(target, checkpoint=tmp_path / "base.ckpt")
    assert torch.equal(target.body.layer1[0].conv1.weight, source.body.layer1[0].conv1.weight)


def test_stand_ins_do_nothing():
    for stand_in, name in HARMLESS:
        made = stand_in(*([] if stand_in is OrderedDict else [Inert, "anything", 3]))
        assert type(made) in (Inert, InertArray, OrderedDict, dict, list) and not vars(type(made)).get("__call__"), name
        assert isinstance(made, Inert) or not made
    assert len({name for _, name in HARMLESS}) == len(HARMLESS)
    thing = Inert("rm", flags="-r")
    thing.__setstate__({"a": 1})
    assert vars(thing) == {}


def test_no_foreign_package_is_needed(tmp_path, monkeypatch):
    """The file names packages that are not installed where it is read, and reading does not import them."""
    cls = plant(monkeypatch, "lightning.fabric.utilities.data.AttributeDict", dict)
    torch.save({"state_dict": WEIGHTS, "hparams": cls(a=1)}, tmp_path / "file.ckpt")
    program = (
        "import sys; from symerge_dense.models.foreign_files import read_foreign\n"
        f"print(len(read_foreign({str(tmp_path / 'file.ckpt')!r}).state), 'lightning' in sys.modules)"
    )
    assert Python("-c", program, folder=ROOT).printed().split() == ["2", "False"]


def test_the_stand_ins_serve_only_this_reader(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read({"state_dict": WEIGHTS}, tmp_path)
    torch.save({"state_dict": WEIGHTS, "a": argparse.Namespace()}, tmp_path / "file.pth")
    with pytest.raises(UnsafeFileError):
        read_plain(tmp_path / "file.pth")
    assert set(torch.serialization.get_safe_globals()) == before


# -- what is not ------------------------------------------------------------------------------------------------------
class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), "posix.system"),
        (lambda path: Calls(eval, f"open({str(path)!r}, 'w')"), "eval"),
        (lambda path: Calls(exec, f"open({str(path)!r}, 'w')"), "exec"),
        (lambda path: Calls(open, str(path), "w"), "io.open"),
        (lambda path: Calls(subprocess.check_call, ["touch", str(path)]), "commands.check_call"),  # its old name
        (lambda path: Calls(pathlib.Path.touch, path), "a call"),  # fetched by getattr, which is on the list
        (lambda path: Calls(pathlib.Path(path).touch), "a call"),
        (lambda path: Calls(np.save, str(path), 1), "numpy.save"),
    ],
    ids=["system", "eval", "exec", "open", "subprocess", "function", "method", "numpy"],
)
@pytest.mark.parametrize("where", ["beside", "inside"])
def test_nothing_else_is_read_or_run(attack, name, where, tmp_path):
    content = {"state_dict": WEIGHTS, "extra": attack(tmp_path / "planted")}
    if where == "inside":
        content["extra"] = argparse.Namespace(a=[content["extra"]])
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UnsafeFileError) as error:
        read_foreign(tmp_path / "file.pth")
    assert f"object {name} " in str(error.value).replace("object of", "object") and "state_dict" in str(error.value)
    assert str(tmp_path / "file.pth") in str(error.value)
    assert not (tmp_path / "planted").exists()


def test_damaged_files_and_files_without_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no tensors by name"):
        read({"state_dict": argparse.Namespace(**{"weight": WEIGHTS["conv.bias"]})}, tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        read({"state_dict": {"a": torch.tensor(float("nan"))}}, tmp_path)
    torch.save(WEIGHTS, tmp_path / "file.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "file.pth").read_bytes()[:400])
    with pytest.raises(CorruptFileError):
        read_foreign(tmp_path / "half.pth")
    with pytest.raises(ValueError, match="there is no file"):
        read_foreign(tmp_path / "none.pth")
