"""Every command: it answers without torch, in a clone and as ``symerge``; plug-ins, configs by name, launch scripts."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders.pipeline_tiny import ENV, ROOT, tool
from builders.prepared_python import Python

from symerge_dense.commands.cli import COMMANDS, main
from symerge_dense.experts.importing.formats import FORMATS
from symerge_dense.models.weight_files import existing
from symerge_dense.pipeline.config_files import copy_config, find_config, parse_overrides, shipped

HEAVY = ("torch", "mmseg", "torchvision", "timm", "matplotlib")
ARGUMENTS = {
    "train": ["no_such_config"],
    "test": ["no_such_config", "x.safetensors"],
    "compare": ["no_such_config"],
    "check": ["no_such_config"],
    "estimate": ["no_such_config"],
    "benchmark": ["step", "no_such_config"],
}
MODULE = """
from typing import ClassVar

from symerge_dense.merging.base import Merger
from symerge_dense.registry import MERGERS


@MERGERS.register_module()
class FirstExpert(Merger):
    \"\"\"The first expert's weights.\"\"\"

    name: ClassVar[str] = "first_expert"

    def merge(self, operands):
        return next(operands.experts())[1].clone()
"""


def light(words):
    """What ``symerge WORDS`` prints in a process of its own, where nothing heavy may be imported."""
    code = (
        "import sys\nfrom symerge_dense.commands.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as end:\n    code = end.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\nassert not heavy, heavy\nsys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_nothing_heavy_and_says_what_the_command_does(name):
    result = light([name, "--help"])
    assert result.returncode == 0, result.stderr
    module = importlib.import_module(f"symerge_dense.commands.{name.replace('-', '_')}")
    assert module.__doc__.split(".")[0][:60] in " ".join(result.stdout.split()) and "--import" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_argument_is_answered_without_anything_heavy(name):
    result = light([name, "--no-such-flag"])
    assert result.returncode == 2 and "usage: symerge" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_config_that_does_not_exist_is_answered_without_anything_heavy(name):
    result = light([name, *ARGUMENTS[name]])
    assert result.returncode == 2 and "unknown config file 'no_such_config'" in result.stderr, result.stderr


def test_a_study_that_does_not_exist_is_answered_without_anything_heavy():
    result = light(["study", "prats"])
    assert result.returncode == 2 and "Did you mean 'parts'" in result.stderr, result.stderr


def test_inputs_that_do_not_exist_are_answered_without_anything_heavy():
    result = light(["predict", "x.safetensors", "no_such_file", "--out", "seen"])
    assert result.returncode == 2 and "no_such_file: no such file or folder" in result.stderr, result.stderr


def test_a_misspelt_config_or_model_is_answered_with_the_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my_config.py", "merged.safetensors"):
        (tmp_path / name).touch()
    for config in ("my_confg.py", "my_config"):
        with pytest.raises(ValueError, match=r"Did you mean 'my_config\.py'"):
            find_config(config)
    with pytest.raises(ValueError, match=r"Did you mean merged\.safetensors"):
        existing("merged.safetensor")


def test_every_command_is_a_tool_and_every_tool_a_command():
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"print_config"}
    assert tools | {"config"} == {name.replace("-", "_") for name in COMMANDS}
    for name in tools:
        assert f'tool("{name.replace("_", "-")}")' in (ROOT / "tools" / f"{name}.py").read_text()


def test_the_program_lists_its_commands_and_its_version(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name}\s+\w", text, re.MULTILINE) for name in COMMANDS)
    with pytest.raises(SystemExit):
        main(["tarin"])
    assert "invalid choice: 'tarin'" in capsys.readouterr().err


def test_import_formats_are_those_that_exist():
    from symerge_dense.commands.import_expert import FORMATS as offered

    assert offered == ("auto", *FORMATS, "timm")  # for a backbone that the command names


# -- configs ----------------------------------------------------------------------------------------------------------
def test_configs_are_found_by_name_and_listed(capsys):
    assert find_config("rooms_symerge").name == "rooms_symerge.py"
    assert main(["config", "list"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) == len(shipped()) and "rooms_symerge " in text and "NYUv2 with the published" in text


def test_a_copied_config_runs_from_its_new_place(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["config", "copy", "rooms_symerge", "mine"]) == 0
    assert (tmp_path / "mine" / "rooms_symerge.py").is_file()
    assert main(["config", "print", "mine/rooms_symerge.py", "--cfg-options", "adaptation.rounds=7"]) == 0
    text = capsys.readouterr().out
    assert "rounds=7" in text and "type='Rooms'" in text
    copy_config("nyuv2_symerge", "mine")  # reads the same _base_, which is there
    (tmp_path / "mine" / "rooms_symerge.py").write_text("seed = 7\n")
    with pytest.raises(ValueError, match=r"rooms_symerge\.py exists and differs; choose another folder"):
        copy_config("rooms_symerge", "mine")
    assert (tmp_path / "mine" / "rooms_symerge.py").read_text() == "seed = 7\n"
    assert main(["config", "copy", "rooms_symmerge"]) == 2
    assert "Did you mean 'rooms_symerge'" in capsys.readouterr().err


def test_what_print_config_prints_can_be_run_again(tmp_path, monkeypatch, capsys):
    from symerge_dense.pipeline.config import load_config

    monkeypatch.chdir(ROOT)
    assert tool("print_config.py", "configs/nyuv2_symerge.py", "--cfg-options", "seed=3") == 0
    printed = tmp_path / "nyuv2_symerge.py"
    printed.write_text(capsys.readouterr().out)
    again, first = load_config(printed), load_config("configs/nyuv2_symerge.py", ["seed=3"])
    assert again.record == first.record and list(again.tasks) == list(first.tasks)


@pytest.mark.parametrize(
    "word, value",
    [
        ("a=1", 1),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=None", None),
        ("a=[1,2]", [1, 2]),
        ("a=1,2", [1, 2]),
        ("a=[x,y]", ["x", "y"]),
        ("a=(0.0,1.5)", (0.0, 1.5)),
        ("a={'flip': 0.5}", {"flip": 0.5}),
        ("a=dict(flip=True, scales=(0.75, 1.0))", {"flip": True, "scales": (0.75, 1.0)}),
        ("a=[dict(type='ColorJitter', p=0.8), dict(b=dict())]", [{"type": "ColorJitter", "p": 0.8}, {"b": {}}]),
        ("a=/data/dict(old)/base.pth", "/data/dict(old)/base.pth"),
        ("a='f(b,c)'", "f(b,c)"),
        ("a=/data/my photos/base.pth", "/data/my photos/base.pth"),
        ("a=b=c", "b=c"),
    ],
)
def test_overrides_are_read_as_mmengine_and_python_read_them(word, value):
    assert parse_overrides([word]) == {"a": value}


@pytest.mark.parametrize(
    "word", ["rounds", "=3", "a=[1,(2]", "a=dict(b=c)", "a=dict(b=open('c'))", "a=dict(b=1", "a=f(b,c)"]
)
def test_other_words_end_the_command(word, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "rooms_symerge", "--cfg-options", word])
    assert end.value.code == 2 and "--cfg-options" in capsys.readouterr().err


# -- plug-ins ---------------------------------------------------------------------------------------------------------
def test_merge_finds_a_method_of_the_users_by_import(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "first.py").write_text(MODULE)
    for number, name in enumerate(("base", "a", "b")):
        save_file({"w": torch.full((3,), float(number))}, tmp_path / f"{name}.safetensors")
    words = ["merge", "--method", "first_expert", "--base", "base.safetensors", "--experts", "a=a.safetensors"]
    words += ["b=b.safetensors", "--out", "merged.safetensors"]

    def run(*more):
        process = Python("-m", "symerge_dense.commands.cli", *words, *more, folder=tmp_path, env=ENV)
        _, complaints = process.communicate()
        return process.returncode, complaints

    code, complaints = run()
    assert code == 2 and "unknown merger 'first_expert'" in complaints
    assert run("--import", "my_lab.first")[0] == 0
    assert load_file(tmp_path / "merged.safetensors")["w"].tolist() == [1.0, 1.0, 1.0]
    code, complaints = run("--import", "my_lab.second")
    assert code == 2 and "plug-in my_lab.second cannot be imported" in complaints


# -- launch scripts ---------------------------------------------------------------------------------------------------
def test_scripts_start_the_tools_with_a_launcher(tmp_path):
    """Stand-ins for python and srun on PATH print what they were asked for."""
    for name in ("python", "srun"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS": "2"}

    def said(script, *words):
        program = [str(ROOT / "tools" / script), *words]
        return subprocess.run(program, env=env, capture_output=True, text=True, check=False)

    train = said("dist_train.sh", "c.py", "3", "--seed", "1").stdout
    assert "--nproc_per_node=3" in train and train.strip().endswith("train.py c.py --launcher pytorch --seed 1")
    test = said("dist_test.sh", "c.py", "m.safetensors", "2").stdout
    assert "--nproc_per_node=2" in test and test.strip().endswith("test.py c.py m.safetensors --launcher pytorch")
    slurm = said("slurm_train.sh", "gpu", "job", "c.py", "--amp").stdout
    assert slurm.startswith("srun -p gpu --job-name=job --gres=gpu:2 --ntasks=2")
    assert slurm.strip().endswith("train.py c.py --launcher slurm --amp")
    assert said("dist_train.sh", "c.py").returncode != 0 and "usage:" in said("dist_train.sh").stderr


def test_two_processes_score_what_one_scores(tmp_path):
    import json

    from builders.pipeline_tiny import write_config

    from symerge_dense.pipeline.config import load_config
    from symerge_dense.pipeline.train import train

    config = write_config(tmp_path)
    train(load_config(config), work_dir=str(tmp_path / "run"))
    words = [str(config), str(tmp_path / "run" / "merged.safetensors"), "--json"]
    one = Python(ROOT / "tools/test.py", *words, env=ENV)
    two = subprocess.run(
        [str(ROOT / "tools/dist_test.sh"), *words[:2], "2", "--json"],
        env={**ENV, "PYTHON": sys.executable, "PORT": str(20000 + os.getpid() % 20000)},
        capture_output=True,
        text=True,
    )
    assert two.returncode == 0, two.stderr[-3000:]
    printed = [one.printed(), two.stdout]
    found, shared = (json.loads(text.strip().splitlines()[-1]) for text in printed)
    for task, metrics in found.items():
        for name, metric in metrics.items():
            assert shared[task][name]["value"] == pytest.approx(metric["value"], rel=1e-6), (task, name)


def test_the_scripts_are_executable_and_know_bash():
    for path in (ROOT / "tools").glob("*.sh"):
        assert os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert Path(ROOT / "tools" / "dist_train.sh").exists()
