"""A file that is no checkpoint is named for what it is, whatever its suffix says, with the remedy."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import torch
from builders.pipeline_tiny import tool
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from symerge_dense.models import weight_files
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.foreign_files import read_foreign
from symerge_dense.models.weight_files import CorruptFileError

WEIGHTS = {"enc.weight": torch.ones(2, 3)}


def archive(path, kind):
    inner = io.BytesIO()
    torch.save(WEIGHTS, inner)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("run/best.pth", inner.getvalue())
    elif kind == "tar":
        with tarfile.open(path, "w") as file:
            entry = tarfile.TarInfo("best.pth")
            entry.size = len(inner.getvalue())
            inner.seek(0)
            file.addfile(entry, inner)
    else:
        path.write_bytes({"gzip": gzip, "bzip2": bz2, "xz": lzma}[kind].compress(inner.getvalue()))


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["weight"] = np.ones(3)


def image(path, kind):
    Image.new("RGB", (4, 4)).save(path, kind)


def onnx_graph(path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    path.write_bytes(helper.make_model(graph, producer_name="pytorch").SerializeToString())


def exported(path):
    program = torch.export.export(nn.Linear(2, 1), (torch.ones(1, 2),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())


def arrays(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(2))


KINDS = {
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><html>404</html>"), "a web page.*download it again"),
    "page2": (lambda p: p.write_text("<html><head></head></html>"), "a web page.*download it again"),
    "lfs": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        "a pointer of git-lfs.*git lfs pull",
    ),
    "annex": (lambda p: p.write_text("/annex/objects/MD5E-s1--x.pth\n"), "a pointer of git-annex.*git annex get"),
    "json": (lambda p: p.write_text('{"weights": [1, 2]}' * 9), "JSON text.*give the checkpoint beside it"),
    "jit": (
        lambda p: torch.jit.script(nn.Linear(2, 1)).save(str(p)),
        r"a TorchScript archive.*torch\.jit\.load\(PATH\)\.state_dict\(\)",
    ),
    "export": (exported, r"an archive of torch\.export.*state_dict"),
    "onnx": (onnx_graph, "an ONNX graph.*exported from"),
    "h5": (hdf5, "an HDF5 file.*state_dict"),
    "npz": (arrays, "an archive of NumPy arrays.*state_dict"),
    "npy": (array, "a NumPy array.*state_dict"),
    "png": (lambda p: image(p, "PNG"), "a PNG image"),
    "jpeg": (lambda p: image(p, "JPEG"), "a JPEG image"),
    "zip": (lambda p: archive(p, "zip"), r"a zip archive of run/best\.pth: unpack it"),
    **{
        kind: (lambda p, kind=kind: archive(p, kind), f"an? {kind} archive: unpack it")
        for kind in ("tar", "gzip", "bzip2", "xz")
    },
    "gguf": (lambda p: p.write_bytes(b"GGUF" + b"\0" * 100), "a GGUF file"),
    "pdf": (lambda p: p.write_bytes(b"%PDF-1.7" + b"\0" * 100), "a PDF document"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named(kind, suffix, tmp_path):
    write, words = KINDS[kind]
    write(tmp_path / f"best{suffix}")
    for mapped in (False, True):
        with pytest.raises(ValueError, match=f"best\\{suffix} is {words}"):
            read_foreign(tmp_path / f"best{suffix}", mapped=mapped)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (b"PK\x01\x02", b"PK\x01\x09"),  # no entry of the list
        (b"PK\x06\x07", b"PK\x06\x07\x00\x00\x00\x00" + b"\x00" * 8 + b"\x05"),  # several disks
        (b"best/data.pkl", b"best/dat\xff.pkl"),  # no UTF-8
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_damaged_list_of_a_zip_file_is_damage(place, content, mapped, tmp_path):
    path = tmp_path / "best.pth"
    torch.save(WEIGHTS, path)
    whole = path.read_bytes()
    at = whole.rindex(place)
    whole = whole[:at] + content + whole[at + len(content) :]
    if b"\xff" in content:  # says that the name is UTF-8
        flags = at - 38
        whole = whole[:flags] + (0x800).to_bytes(2, "little") + whole[flags + 2 :]
    path.write_bytes(whole)
    with pytest.raises(CorruptFileError, match=r"best\.pth is truncated or damaged.*again"):
        read_foreign(path, mapped=mapped)


def test_want_of_memory_and_our_own_mistakes_are_not_called_damage(tmp_path, monkeypatch):
    path = tmp_path / "best.pth"
    torch.save(WEIGHTS, path)
    for owner, name, fault in ((torch, "load", MemoryError), (weight_files, "in_known_protocol", KeyError)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *_, fault=fault, **__: (_ for _ in ()).throw(fault("x")))
            patch.setattr(weight_files, "has_memory", lambda count: False)
            with pytest.raises(fault):
                read_foreign(path)


def test_a_file_that_asks_for_more_memory_than_it_has_bytes_is_damaged(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / "best.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError("x")))
    with pytest.raises(ValueError, match="asks for more memory than it has bytes"):
        read_foreign(tmp_path / "best.pth")


def test_an_onnx_file_is_named_by_its_suffix_too(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07" + bytes(range(100)))
    with pytest.raises(ValueError, match="is an ONNX graph"):
        read_foreign(tmp_path / "model.onnx")


@pytest.mark.parametrize("side", ["base", "expert", "import", "backbone"])
@pytest.mark.parametrize("kind", ["page", "lfs"])
def test_every_reader_says_it_and_writes_nothing(side, kind, tmp_path, capsys):
    write, words = KINDS[kind]
    bad, good, out = tmp_path / "bad.pth", tmp_path / "good.safetensors", tmp_path / "out.safetensors"
    write(bad)
    save_file(WEIGHTS, good)
    if side == "backbone":
        with pytest.raises(ValueError, match=words):
            load_base(TimmBackbone("resnet18"), checkpoint=bad)
        return
    if side == "import":
        code = tool("import_expert.py", bad, "--out", out)
    else:
        base, expert = (bad, good) if side == "base" else (good, bad)
        code = tool("merge.py", "--method", "average", "--base", base, "--experts", f"a={expert}", "--out", out)
    assert code == 2 and words.split(".*")[1] in capsys.readouterr().err and not out.exists()
