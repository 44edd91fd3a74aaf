"""README's worked example, executed exactly as it is printed: one file, one config, the command."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"`([\w/.]+\.py)`[^`]*?:\n\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with the files of README's example added."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("symerge_dense", "configs", "tools", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = {name: code for name, code in BLOCK.findall(README) if not (ROOT / name).exists()}
    assert [Path(name).parent.name for name in files] == ["tasks", "configs"]
    for name, code in files.items():
        (folder / name).write_text(code)
    return folder


def run(arguments, folder):
    env = {**os.environ, "PYTHONPATH": str(folder)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def test_the_example_runs_as_printed(copy):
    (command,) = [line for line in README.splitlines() if line.startswith("python tools/train.py configs/rooms_disp")]
    run(shlex.split(command)[1:], copy)
    (path,) = copy.glob("work_dirs/rooms_disparity_symerge/*/results.json")
    results = json.loads(path.read_text())
    for row in ("experts", "average", "task_arithmetic", "initial", "merged"):
        assert list(results[row]["tasks"]) == ["segmentation", "depth", "normals", "disparity"]
        assert results[row]["tasks"]["disparity"]["abs"]["value"] > 0
    assert (path.parent / "panels.png").stat().st_size > 10_000


def test_the_contract_tests_pick_the_newcomer_up(copy):
    output = run(["-m", "pytest", "-q", "tests/test_tasks_contract.py", "-k", "disparity"], copy)
    passed = re.search(r"(\d+) passed", output)
    assert passed and int(passed[1]) >= 10


def test_every_file_and_target_that_readme_names_exists():
    example = {name for name, _ in BLOCK.findall(README)}
    named = set(re.findall(r"(?:configs|docs|tools|symerge_dense)/[\w/]+\.(?:py|md|png)", README)) - example
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets) and README.index("make demo") < README.index("make test") < 1200
