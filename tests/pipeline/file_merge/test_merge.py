"""tools/merge.py: what it writes is the merge in memory, bit for bit, and what it refuses leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from builders.merge_checkpoints import Files, record, same, write_files, write_models
from builders.pipeline_tiny import ENV, ROOT, tool
from safetensors.torch import load_file, save_file
from torch import Tensor

from symerge_dense.merging.run import merge_state
from symerge_dense.merging.safetensors_writer import TensorFile
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.models.weight_files import has_record
from symerge_dense.registry import MERGERS

METHODS = [name for name in MERGERS if not MERGERS[name].needs]
SETTINGS = {"lines": ["beta=0"], "doge_ta": ["iterations=3"], "ties": ["density=0.3", "aggregation=sum"]}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_files(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_is_the_merge_in_memory(files: Files, method: str) -> None:
    options = {
        key: json.loads(value) if value[0].isdigit() else value
        for key, value in (word.split("=") for word in SETTINGS.get(method, []))
    }
    merger = MERGERS[method](**options)
    task = ["--task", "b"] if merger.per_task else []
    settings = ["--set", *SETTINGS[method]] if method in SETTINGS else []
    assert tool("merge.py", *files.arguments(method, *settings, *task, "--seed", "4", "--statistics", "moments")) == 0
    expected = merge_state(
        merger, files.base, files.experts, statistics="moments", seed=4, task="b" if merger.per_task else None
    )
    assert same(load_file(files.out), expected)
    found = record(files.out)
    assert (found["method"], found["seed"], found["statistics"]) == (method, 4, "moments")
    assert found["options"] == json.loads(json.dumps(merger.hyperparameters))


def test_the_record_tells_weights_apart(files: Files) -> None:
    def sample(name: str) -> str:
        assert tool("merge.py", *files.arguments("average", "--overwrite")) == 0
        found = record(files.out)
        return {**found["experts"], "base": found["base"]}[name][0]["sampled_sha256"]

    first = sample("a")
    assert len({first, sample("b"), sample("base")}) == 3
    written = files.out.read_bytes()
    os.utime(files.folder / "a.safetensors")
    assert sample("a") == first and files.out.read_bytes() == written
    state = load_file(files.folder / "a.safetensors")
    state["fc.weight"][-1, -1] += 1
    save_file(state, files.folder / "a.safetensors")
    assert sample("a") != first


def test_the_record_names_inputs_and_versions(files: Files) -> None:
    assert tool("merge.py", *files.arguments("average", "--hash")) == 0
    found = record(files.out)
    assert set(found["experts"]) == {"a", "b"} and found["versions"]["torch"] == torch.__version__.split("+")[0]
    (entry,) = found["experts"]["b"]
    content = (files.folder / "b.safetensors").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["size"] == len(content) and entry["file"].endswith("b.safetensors")
    assert same(load_file(files.out), merge_state(MERGERS["average"](), files.base, files.experts))
    tool("merge.py", *files.arguments("average", "--overwrite"))
    assert "sha256" not in record(files.out)["base"][0]


def test_equal_merges_write_equal_bytes(files: Files) -> None:
    for _ in range(2):
        assert tool("merge.py", *files.arguments("dare", "--seed", "3", "--overwrite")) == 0
        first = files.out.read_bytes()
    assert tool("merge.py", *files.arguments("dare", "--seed", "3", out="again.safetensors")) == 0
    assert (files.folder / "again.safetensors").read_bytes() == first
    tool("merge.py", *files.arguments("dare", "--seed", "5", "--overwrite"))
    assert not same(load_file(files.out), load_file(files.folder / "again.safetensors"))


def test_a_dry_run_tells_and_writes_nothing(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("merge.py", *files.arguments("ties", "--dry-run", out="new/out.safetensors")) == 0
    text = capsys.readouterr().out
    for word in ("density=0.2", "matrix", "bn_stat", "statistics: mean", "counter", "the base's", "MiB of memory"):
        assert word in text
    assert files.nothing_written()


def change(files: Files, name: str, **tensors: Tensor | None) -> None:
    state = dict(files.experts[name])
    for key, value in tensors.items():
        key = key.replace("__", ".")
        state.pop(key) if value is None else state.update({key: value})
    save_file(state, files.folder / f"{name}.safetensors")


def test_options_are_given_as_flags_or_settings(files: Files) -> None:
    for words in (["--density", "0.5", "--scale=0.7"], ["--set", "density=0.5", "scale=0.7"]):
        assert tool("merge.py", *files.arguments("ties", *words, "--overwrite")) == 0
        merger = MERGERS["ties"](density=0.5, scale=0.7)
        assert same(load_file(files.out), merge_state(merger, files.base, files.experts))


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("tise", [], "unknown merger 'tise'. Did you mean 'ties'"),
        ("ties", ["--set", "densty=0.2"], "unknown option of ties 'densty'. Did you mean 'density'"),
        ("ties", ["--densty", "0.2"], "unknown option of ties 'densty'. Did you mean 'density'"),
        (
            "ties",
            ["--density"],
            "'--density' is no option of this tool (see --help), nor one of the method with a value",
        ),
        ("ties", ["--set", "density"], "'density' is not OPTION=VALUE with a name of its own; write density=0.2"),
        ("ties", ["--density=2"], "ties: density is 2; it must lie in (0, 1]"),
        ("ties", ["--set", "density=2"], "ties: density is 2; it must lie in (0, 1]"),
        ("ties", ["--set", "density=abc"], "density is 'abc'"),
        ("average", ["--set", "scale=1"], "unknown option of average 'scale'. Known: none"),
        ("average", ["--statistics", "meen"], "Did you mean 'mean'"),
        ("average", ["--task", "a"], "one set of weights"),
        ("average", ["--prefix", "encoder."], "no tensor name starts with 'encoder.'"),
        ("ties", ["--scale", "1e39"], "ties: scale is 1e+39; it must be a finite number of at most 3.403e+38"),
        ("task_arithmetic", ["--scale", "3e38"], "exceeds the range of torch.float32; use a smaller scale"),
        ("average", ["--device", "meta"], "--device meta cannot be used (it holds no values)"),
        ("average", ["--device", "nonsense"], "--device nonsense cannot be used"),
        ("average", ["--experts", "a.safetensors"], "'a.safetensors' is not NAME=FILE"),
        ("average", ["--experts", "base=a.safetensors"], "no expert can be called 'base'"),
        ("average", ["--base", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        ("emr", [], "emr gives every task weights of its own; name one with --task: a, b"),
        ("ties", ["--packed"], "--packed keeps a mask for each task, and ties has none; leave it out, or use one of "),
        ("emr", ["--packed", "--task", "a"], "--packed writes all tasks; leave out --task a"),
        (
            "fisher",
            [],
            "fisher needs fisher of every expert, which come from images, and this tool has none; use tools/",
        ),
        ("lines", [], "lines scales by depth, and the specs know no blocks"),
    ],
)
def test_wrong_arguments(
    files: Files, capsys: pytest.CaptureFixture[str], method: str, more: list[str], message: str
) -> None:
    assert tool("merge.py", *files.arguments(method, *more)) == 2
    assert message in capsys.readouterr().err and files.nothing_written()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc__weight": None}, "missing 'fc.weight'"),
        ({"fc__weight": torch.zeros(20, 31)}, "'fc.weight' has shape (20, 31), the base (20, 30)"),
        ({"fc__bias": torch.zeros(20).half()}, "data type torch.float16, the base torch.float32"),
        ({"head__weight": torch.zeros(3)}, "unexpected 'head.weight'"),
        ({"fc__weight": torch.full((20, 30), float("nan"))}, "b: tensor 'fc.weight' holds NaN"),
        ({"bn__running_mean": torch.full((6,), float("inf"))}, "b: tensor 'bn.running_mean' holds NaN or infinite"),
    ],
)
def test_experts_that_do_not_fit(
    files: Files, capsys: pytest.CaptureFixture[str], tensors: dict[str, Tensor | None], message: str
) -> None:
    change(files, "b", **tensors)
    for method in ("average", "ties"):
        assert tool("merge.py", *files.arguments(method)) == 2
        assert message in capsys.readouterr().err and files.nothing_written()


@pytest.mark.parametrize("name", ["base", "b"])
@pytest.mark.parametrize("left", [0, 5, 300, -7])
def test_truncated_files(files: Files, capsys: pytest.CaptureFixture[str], name: str, left: int) -> None:
    path = files.folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert tool("merge.py", *files.arguments("average")) == 2
    assert f"{path} is not a readable safetensors file" in capsys.readouterr().err and files.nothing_written()


def test_no_space(files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=900))
    for more in ([], ["--dry-run"]):
        assert tool("merge.py", *files.arguments("average", *more)) == 2
        assert "MiB free; make room" in capsys.readouterr().err and files.nothing_written()


def test_what_exists_is_kept(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.out.write_text("precious")
    assert tool("merge.py", *files.arguments("average")) == 2
    assert "exists; choose another name, or pass --overwrite" in capsys.readouterr().err
    assert files.out.read_text() == "precious"
    change(files, "b", fc__weight=torch.full((20, 30), float("nan")))
    assert tool("merge.py", *files.arguments("average", "--overwrite")) == 2
    assert files.out.read_text() == "precious"
    files.out.unlink()
    for out, message in (("a.safetensors", "is one of the inputs"), ("out.pth", "must end in .safetensors")):
        assert tool("merge.py", *files.arguments("average", "--overwrite", out=out)) == 2
        assert message in capsys.readouterr().err and files.nothing_written()


def test_ctrl_c_leaves_nothing(
    files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(self: TensorFile, name: str, tensor: Tensor) -> None:
        written.append(name)
        if len(written) == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TensorFile, "write", write)
    assert tool("merge.py", *files.arguments("average", "--hash")) == 130
    assert len(written) >= 3 and "interrupted; nothing was written" in capsys.readouterr().err
    assert files.nothing_written()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_save(files: Files, legacy: bool) -> None:
    path = files.folder / "old.pth"
    state = {f"module.{name}": value for name, value in files.experts["a"].items()}
    torch.save({"epoch": 3, "state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    base = files.folder / "base.pth"
    torch.save(files.base, base)
    words = ["--experts", f"a={path}", f"b={files.folder / 'b.safetensors'}", "--base", base]
    assert tool("merge.py", *files.arguments("ties", *words)) == 0
    assert same(load_file(files.out), merge_state(MERGERS["ties"](), files.base, files.experts))
    assert len(record(files.out)["experts"]["a"][0]["sampled_sha256"]) == 64


def test_files_that_could_run_code_are_not_read(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    path = files.folder / "evil.pth"
    torch.save({"state_dict": files.base, "hook": signal.raise_signal}, path)
    assert tool("merge.py", *files.arguments("average", "--experts", f"a={path}")) == 2
    assert "holds the pickled object" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_without_plain_values_are_refused(
    files: Files, capsys: pytest.CaptureFixture[str], value: Tensor
) -> None:
    path = files.folder / "odd.pth"
    torch.save({**files.experts["a"], "fc.weight": value, 3: torch.ones(1)}, path)
    assert tool("merge.py", *files.arguments("average", "--experts", f"a={path}")) == 2
    assert "odd.pth: 1: fc.weight sparse, or without values" in capsys.readouterr().err and not files.out.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(files: Files, dtype: torch.dtype) -> None:
    def cast(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}

    for name, state in {"base": files.base, **files.experts}.items():
        save_file(cast(state), files.folder / f"{name}.safetensors")
    assert tool("merge.py", *files.arguments("ties")) == 0
    experts = {name: cast(state) for name, state in files.experts.items()}
    assert same(load_file(files.out), merge_state(MERGERS["ties"](), cast(files.base), experts))


def test_shards_and_a_prefix_that_stays_in_the_names(files: Files) -> None:
    for name, state in {"base": files.base, **files.experts}.items():
        folder = files.folder / name
        folder.mkdir()
        items = [(f"encoder.{key}", value) for key, value in state.items()]
        save_file(dict(items[:4]), folder / "model-1.safetensors")
        save_file({**dict(items[4:]), f"head.{name}": torch.ones(2)}, folder / "model-2.safetensors")
    words = ["--base", files.folder / "base", "--experts", *(f"{n}={files.folder / n}" for n in "ab")]
    assert tool("merge.py", *files.arguments("ties", *words, "--prefix", "encoder.")) == 0
    expected = merge_state(MERGERS["ties"](), files.base, files.experts)
    assert same(load_file(files.out), {f"encoder.{name}": value for name, value in expected.items()})
    assert [Path(entry["file"]).name for entry in record(files.out)["base"]] == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]
    for name in ("model-1", "merged"):
        shards = {path.name: path.read_bytes() for path in (files.folder / "a").iterdir()}
        assert tool("merge.py", *files.arguments("ties", *words, "--overwrite", out=f"a/{name}.safetensors")) == 2
        assert {path.name: path.read_bytes() for path in (files.folder / "a").iterdir()} == shards


def test_of_this_package_s_models_the_backbone_is_merged_and_known_by_its_modules(tmp_path: Path) -> None:
    base, experts, words = write_models(tmp_path)
    out = ["--out", tmp_path / "out.safetensors"]
    assert tool("merge.py", "--method", "lines", "--set", "beta=0.5", *words, *out) == 0  # which needs to know depth
    merged = merge_state(
        MERGERS["lines"](beta=0.5),
        base.state_dict(),
        {name: expert.backbone.state_dict() for name, expert in experts.items()},
        tensor_specs(base),
    )
    assert same(load_file(tmp_path / "out.safetensors"), {f"backbone.{name}": value for name, value in merged.items()})
    assert record(tmp_path / "out.safetensors")["prefix"] == "backbone."
    assert not has_record(tmp_path / "out.safetensors")


def test_memory_is_a_few_tensors(tmp_path: Path) -> None:
    shapes = {f"blocks.{block}.weight": (1000, 1000) for block in range(9)}  # 36 MB each, 4 MB a tensor
    for name in ("base", "a", "b", "c"):
        save_file({key: torch.rand(shape) for key, shape in shapes.items()}, tmp_path / f"{name}.safetensors")
    experts = [f"{name}={tmp_path / name}.safetensors" for name in "abc"]
    watcher = (
        "import sys, threading, time, runpy\n"
        "from symerge_dense.pipeline import method_options\n"
        "from symerge_dense.pipeline.file_merge import merge\n"
        "from symerge_dense.pipeline.profiling.file_merge import own_memory\n"
        "import os, torch\n"
        "method_options.method_of('ties'); torch.rand(1000, 1000).sum()\n"
        "before, peak = own_memory(os.getpid()), [0]\n"
        "def watch():\n"
        "    while True:\n"
        "        peak[0] = max(peak[0], own_memory(os.getpid())); time.sleep(0.002)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "sys.argv = ['merge.py', *sys.argv[1:]]\n"
        "try:\n    runpy.run_path('tools/merge.py', run_name='__main__')\n"
        "except SystemExit as end:\n    print('rc', end.code, 'grew', peak[0] - before)\n"
    )
    words = [
        "--method",
        "ties",
        "--base",
        tmp_path / "base.safetensors",
        "--experts",
        *experts,
        "--out",
        tmp_path / "out.safetensors",
    ]
    done = subprocess.run(
        [sys.executable, "-c", watcher, *map(str, words)], env=ENV, cwd=ROOT, capture_output=True, text=True, check=True
    )
    code, grew = (int(word) for word in done.stdout.split()[-3::2])
    assert code == 0 and grew < 60e6, done.stdout  # of 144 MB of inputs and 36 MB of output
