"""Every kind of file that a later run reads again, damaged: it is named, and made anew or refused, never used.

A kind is made, damaged in one of three ways, and used again by a new process, whose memory of sound files is empty.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import tiny
from builders.pipeline_tiny import write_config

from symerge_dense.adaptation.history import History
from symerge_dense.adaptation.label_cache import write_labels
from symerge_dense.datasets import checksums
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.checkpointing import checkpoints, newest_checkpoint
from symerge_dense.models.checkpoint import load_model, save_model, state_hash
from symerge_dense.models.kept_files import is_kept
from symerge_dense.models.views import Views
from symerge_dense.pipeline.comparison.head_transfer import HeadDonor
from symerge_dense.pipeline.comparison.rows import RowStore
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.run_dir import open_run
from symerge_dense.preparation.convert.export import export
from symerge_dense.studies.frame.cache import RunCache


def flip(content: bytes, place: float) -> bytes:
    """One bit of the payload, which stays of the same size and shape; of a text one digit, which stays a number."""
    digits = [found.start() for found in re.finditer(rb"(?<=[0-9.])[1-8]", content)] if content[:1] == b"{" else []
    at = digits[int(place * (len(digits) - 1))] if digits else int(place * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes, float], bytes]] = {
    "flip": flip,
    "truncate": lambda content, place: content[: len(content) * 2 // 3],
    "empty": lambda content, place: b"",
}


@dataclass
class Kind:
    """A kind of kept file.

    Args:
        use: works in a folder, where it makes the file or uses the one that is there; returns what came out.
        path: pattern of the file in that folder.
        place: where in the file a bit is flipped, 0 to 1: 1 is the last byte.
        refused: whether a damaged file ends in a ValueError; else it is made anew, with the same result.
        damages: that can be found.
    """

    use: Callable[[Path], Any]
    path: str
    place: float = 1
    refused: bool = False
    damages: tuple[str, ...] = tuple(DAMAGES)


def rooms(*tasks: str) -> Callable[[Path], Any]:
    def use(folder: Path) -> Any:
        found = Rooms("val", folder / "rooms", 2, {task: {} for task in tasks}, size=(12, 16))
        return [found.target(1, task).tobytes() for task in tasks]

    return use


def labels(folder: Path, views: Views | None = None) -> Any:
    experts, pool = tiny.family()[1], Unlabelled(tiny.TinySet({}, split="pool"), limit=3)
    place = write_labels(experts, pool, folder / "labels", 2, views)
    return {path.name: np.load(path).tobytes() for path in place.glob("*.npy")}


def experts(folder: Path, allowed: bool = True) -> Any:
    more = ["base.random_init=True"]
    store = ExpertStore(load_config(write_config(folder), more), allowed)
    base = store.base()
    path = store._trained_expert("depth", base, state_hash(base.state_dict()))
    return load_model(path)[1]["hash"], Path(store.files(base)["base"]).read_bytes()


def experts_of_others(folder: Path) -> Any:
    return experts(folder, allowed=not list(folder.glob("experts/depth-*")))


def model(folder: Path) -> Any:
    path = folder / "merges" / "a.safetensors"
    if not is_kept(path):
        save_model(path, tiny.family()[1]["depth"])
    return path.read_bytes()


def checkpoint(folder: Path) -> Any:
    for number in (1, 2) if not checkpoints(folder) else ():
        meta = {"iter": number, "fingerprint": "a"}
        torch.save({"meta": meta, "state_dict": {"w": torch.arange(500)}}, folder / f"iter_{number}.pth")
    return newest_checkpoint(folder, "a") is not None


def row(folder: Path) -> Any:
    store = RowStore(folder)
    if store.read("ties", "asked", {}) is None:
        store.write("ties", "asked", {}, {"method": "ties", "runs": 1, "seconds": 1.25})
    return store.read("ties", "asked", {})


def study(folder: Path) -> Any:
    return RunCache(folder).fetch("method", {"seed": 1}, lambda: {"delta_m": 1.25})


def run_json(folder: Path) -> Any:
    config = SimpleNamespace(record={"adaptation": {"rounds": 15, "layer_lr": 0.25}})
    open_run(folder / "run", config, (folder / "run").exists())


def history(folder: Path) -> Any:
    found = History(folder / "history.jsonl")
    if not found.path.exists():
        for iteration in range(6):
            found.add(iteration, {"loss_depth": torch.tensor(0.25)})
        found.flush()
    found.cut(5)
    return found.path.exists()


def prepared(folder: Path) -> Any:
    if not (folder / "val").exists():
        export(tiny.TinySet({"depth": {}}, count=2, size=(12, 16)), folder / "val")
    found = NYUv2(folder, "val", {"depth": {}})
    return [found.image(1).tobytes(), found.target(1, "depth").tobytes()]


KINDS = {
    "frames of rooms": Kind(rooms("depth"), "rooms/*/val-2/depth.npy"),
    "further frames of rooms": Kind(rooms("height"), "rooms/*/val-2/pose.npy"),
    "labels": Kind(labels, "labels/depth.npy"),
    "labels of views": Kind(partial(labels, views=Views(flip=True)), "labels/*/depth.variance.npy"),
    "record of labels": Kind(labels, "labels/depth.json", 0.5),
    "checksum of labels": Kind(labels, "labels/depth.npy.crc32", 0),
    "expert": Kind(experts, "experts/depth-*.safetensors"),
    "expert, --no-train-experts": Kind(experts_of_others, "experts/depth-*.safetensors", refused=True),
    "base of experts": Kind(experts, "experts/base-*.safetensors"),
    "merge of a study": Kind(model, "merges/a.safetensors"),
    "checkpoint": Kind(checkpoint, "iter_2.pth", 0.5),
    "row": Kind(row, "ties.json"),
    "result of a study": Kind(study, "runs/*.json"),
    "prepared frame": Kind(prepared, "val/image/1.npy", refused=True),
    "prepared label": Kind(prepared, "val/depth/1.npy", 0.7, refused=True),
    "checksums of prepared frames": Kind(prepared, "val/checksums.json", refused=True),
    "run.json": Kind(run_json, "run/run.json", refused=True),
    "history": Kind(history, "history.jsonl", damages=("truncate", "empty")),  # other digits are another curve
}


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_named_and_made_anew_or_refused(tmp_path, capsys, monkeypatch, name):
    kind = KINDS[name]
    whole = kind.use(tmp_path)
    (path,) = tmp_path.glob(kind.path)
    content = path.read_bytes()

    def told():
        return capsys.readouterr().out.replace(f"all 77 tensors of {path}", "").replace(".crc32", "")

    def again():
        monkeypatch.setattr(checksums, "_compared", {})
        told()
        return kind.use(tmp_path)

    assert again() == whole and path.name.removesuffix(".crc32") not in told(), "a sound one is used without a word"
    for damage in kind.damages:
        path.write_bytes(DAMAGES[damage](content, kind.place))
        assert path.read_bytes() != content
        if not kind.refused:
            assert again() == whole, damage
            assert str(path).removesuffix(".crc32") in told(), damage
            continue
        with pytest.raises(ValueError) as error:
            again()
        assert str(path if damage != "flip" else path.parent) in str(error.value), damage


@pytest.mark.parametrize("name", ["frames of rooms", "labels", "row", "result of a study"])
def test_a_file_of_an_earlier_version_is_taken_as_it_is(tmp_path, capsys, monkeypatch, name):
    kind = KINDS[name]
    whole = kind.use(tmp_path)
    for path in tmp_path.rglob("*.crc32"):
        path.unlink()
    for path in tmp_path.rglob("*.json"):
        path.write_text(re.sub(r',\s*"hash": "\w+"', "", path.read_text()))
    monkeypatch.setattr(checksums, "_compared", {})
    capsys.readouterr()
    assert kind.use(tmp_path) == whole and capsys.readouterr().out == ""


def test_layers_of_a_damaged_model_are_not_transferred(tmp_path):
    path = tmp_path / "adapted.safetensors"
    save_model(path, tiny.family()[1]["depth"])
    content, found = path.read_bytes(), HeadDonor(path)
    assert found.hash is not None
    for damage in DAMAGES.values():
        path.write_bytes(damage(content, 1))
        assert found.hash is None and HeadDonor(path).hash is None
    path.write_bytes(content)
    assert found.hash is not None


def test_a_file_is_read_once_by_a_process_and_again_after_a_change(tmp_path, monkeypatch):
    path, read = tmp_path / "a.npy", []
    np.save(path, np.ones(100))
    sum_of = checksums._checksum
    monkeypatch.setattr(checksums, "_checksum", lambda path: read.append(path) or sum_of(path))
    checksums.write_checksum(path)
    assert not checksums.is_changed(path) and len(read) == 1
    times = path.stat()
    path.write_bytes(flip(path.read_bytes(), 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert checksums.is_changed(path) and checksums.is_changed(path) and len(read) == 3
