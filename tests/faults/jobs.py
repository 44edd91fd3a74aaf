"""Jobs to kill, each tiny and from nothing, and what must be the same of their files when they have ended."""

from __future__ import annotations

import ast
import csv
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from builders.films import write_film
from builders.merge_checkpoints import write_files
from builders.nyu_mat_files import write_mat
from builders.photos import write_photos
from builders.pipeline_tiny import write_config
from builders.studies import STUDY
from safetensors import safe_open

from symerge_dense.adaptation.history import read_history
from symerge_dense.commands.cli import main
from symerge_dense.fileio import mapped_array, parsed_json
from symerge_dense.models.checkpoint import save_model
from symerge_dense.models.weight_files import read_plain
from symerge_dense.testing.tiny import SIZE, family

Words = list[object]


@dataclass(frozen=True)
class Job:
    """A command, as a user gives it.

    Args:
        name: of the job.
        share: of all full disks and failing calls.
        prepare: writes into one folder what the command reads, and returns the command; it writes into the other.
        record: file that a run writes first: with it, --resume goes on; "" where the same command does.
        last: file that is written last, where the same command refuses to write it again.
        full: folder in it whose disk becomes full; "" for all of it.
        kills: share of all kills.
    """

    name: str
    share: int
    prepare: Callable[[Path, Path], Words]
    record: str = ""
    last: str = ""
    full: str = ""
    kills: int = 0


def _main(given: Path, made: Path) -> Words:
    config = write_config(given, rooms=made / "rooms", experts=made / "experts")
    return ["train.py", config, "--work-dir", made / "run"]


def _caches_elsewhere(given: Path, made: Path) -> Words:
    config = write_config(given, rooms=made / "caches" / "rooms", experts=made / "caches" / "experts")
    return ["train.py", config, "--work-dir", made / "run"]


def _run_elsewhere(given: Path, made: Path) -> Words:
    config = write_config(given, rooms=made / "rooms", experts=made / "experts")
    return ["train.py", config, "--work-dir", made / "runs" / "run"]


def _comparison(given: Path, made: Path) -> Words:
    config = write_config(given, rooms=made / "rooms", experts=made / "experts")
    methods = ["--methods", "task_arithmetic", "ties", "symerge", "--seeds", 2]
    return ["compare.py", config, "--work-dir", made / "run", *methods]


def _study(given: Path, made: Path) -> Words:
    config = write_config(given, more=STUDY, rooms=made / "rooms", experts=made / "experts")
    return ["study.py", config, "--work-dir", made / "run", "--cache", made / "cache"]


def _merge(given: Path, made: Path, *more: object) -> Words:
    return ["merge.py", *write_files(given, 400_000).arguments("ties", *more, out=str(made / "out.safetensors"))]


def _sharded(given: Path, made: Path) -> Words:
    return _merge(given, made, "--shard-size", "20MB")


def _pack(given: Path, made: Path) -> Words:
    words = write_files(given, 400_000).arguments("ties", out=str(made / "out.safetensors"))
    return ["pack.py", *words[2:], "--bits", 8]


def _unpack(given: Path, made: Path) -> Words:
    words = [str(word) for word in _pack(given, given)[1:]]
    if main(["pack", *words]):
        raise AssertionError("nothing is packed")
    base = given / "base.safetensors"
    return ["unpack.py", given / "out.safetensors", "--base", base, "--task", "a", "--out", made / "out.safetensors"]


def _conversion(given: Path, made: Path) -> Words:
    write_mat(given, count=8, train=(1, 2, 4, 5), normals="tgz")
    return ["prepare_data.py", "nyuv2", given, "--from", "mat", "--out", made]


def _model(given: Path) -> Path:
    path = given / "model.safetensors"
    _, _, model = family()
    save_model(path, model.eval(), {"image_size": list(SIZE)})
    return path


def _prediction(given: Path, made: Path) -> Words:
    """Pictures and numbers of photos, and a video of a film."""
    write_photos(given / "photos", 40)
    write_film(given / "photos" / "film.avi", 20)
    return ["predict.py", _model(given), given / "photos", "--out", made / "out", "--raw", "png", "--panel"]


def _program(given: Path, made: Path) -> Words:
    return ["export.py", _model(given), "--to", "torch-export", "--out", made / "model.pt2"]


def _graph(given: Path, made: Path) -> Words:
    return ["export.py", _model(given), "--to", "onnx", "--out", made / "model.onnx"]


JOBS = [
    Job("main job", 12, _main, "run/run.json", kills=12),
    Job("main job, caches on another disk", 4, _caches_elsewhere, "run/run.json", full="caches"),
    Job("main job, run on another disk", 4, _run_elsewhere, "runs/run/run.json", full="runs"),
    Job("comparison", 8, _comparison, "run/run.json", kills=8),
    Job("study", 8, _study, "run/run.json", kills=8),
    Job("file merge", 4, _merge, last="out.safetensors", kills=4),
    Job("file merge, shards", 4, _sharded, last="out.safetensors.index.json", kills=4),
    Job("pack", 2, _pack, last="out.safetensors", kills=2),
    Job("unpack", 2, _unpack, last="out.safetensors", kills=2),
    Job("conversion", 6, _conversion, kills=4),
    Job("predict", 3, _prediction, kills=4),
    Job("export, torch.export", 1, _program, last="model.pt2", kills=1),
    Job("export, ONNX", 2, _graph, last="model.onnx", kills=1),
]

# -- files ------------------------------------------------------------------------------------------------------------
COSTS = re.compile(r"(.*_)?seconds|peak_memory_mb|timings|commit")
LOGS = re.compile(r"\d{8}_\d{6}")  # folders of MMEngine's, one for each start


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of what a job has written, without logs and lock files."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and "locks" not in parts and not any(LOGS.fullmatch(part) for part in parts):
            yield "/".join(parts), path


def unfinished(name: str) -> bool:
    """Whether a file is one that gets its name when it is whole."""
    return any(part.startswith(".") for part in name.split("/"))


def half_written(folder: Path) -> list[str]:
    """Files that cannot be read, though they have their final names."""
    return [f"{name}: {value}" for name, value in contents(folder).items() if isinstance(value, Unreadable)]


def contents(folder: Path) -> dict[str, Any]:
    """Every file with what must be the same at each run: all but times and memory."""
    found: dict[str, Any] = {}
    for name, path in files(folder):
        try:
            found[name] = "unfinished" if unfinished(name) else _read(path)
        except Exception as error:
            found[name] = Unreadable(error)
    return found


class Unreadable(str):
    """Why a file cannot be read."""


def _read(path: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".json":
        found = _without_costs(parsed_json(data))  # the hash of a row is of its costs, too
        return {key: value for key, value in found.items() if key != "hash"} if isinstance(found, dict) else found
    if path.suffix == ".jsonl":
        return read_history(path)  # it is appended to: the last line may be cut off until the run goes on
    if path.suffix == ".csv":
        return [_without_costs(row) for row in csv.DictReader(data.decode().splitlines())]
    if path.suffix == ".md":  # tables with seconds, whose numbers are in a .csv, too
        return len(data.decode()) > 0
    if path.suffix == ".py":  # how MMEngine was started, with the folder of that start
        return isinstance(ast.parse(data), ast.Module)
    if path.suffix == ".pth":
        return sorted(read_plain(path))  # it holds the name that it was written under
    if path.suffix == ".npy":
        mapped_array(path, "")
    elif path.suffix in (".png", ".jpg"):
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    elif path.suffix == ".mp4":
        assert cv2.VideoCapture(str(path)).read()[0]
    elif path.suffix == ".pt2":
        assert zipfile.ZipFile(path).testzip() is None
    elif path.suffix == ".onnx":
        onnx.checker.check_model(data)
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as file:  # the library writes the entries of its metadata in any order
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            about = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in tensors.items()}
            kinds = {name: f"{value.dtype} {value.shape}" for name, value in tensors.items()}
            return [about, kinds, file.metadata()]
    return hashlib.sha256(data).hexdigest()


def _without_costs(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_costs(item) for key, item in value.items() if not COSTS.fullmatch(key)}
    return [_without_costs(item) for item in value] if isinstance(value, list) else value
