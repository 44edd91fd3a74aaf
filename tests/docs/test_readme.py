"""README's worked example, a package outside the repository, executed exactly as it is printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from symerge_dense.datasets.rooms.dataset import Rooms

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FILE = re.compile(r"`([\w/]+\.py)`[^`]*?:\n\n```python\n(.*?)```", re.DOTALL)
EXAMPLE = README[README.index("## Add a dense task") : README.index("## How a run is laid out")]
FRAME = (64, 96)


def write_photos(root):
    """Rendered rooms as somebody's photos: JPEG, depth in millimetres, saliency (here: brightness) in 0..255."""
    rooms = Rooms("train", root / "rooms", count=16, size=FRAME, tasks={"depth": {}, "albedo": {}})
    for split, numbers in {"train": range(8), "val": range(8, 12), "test": range(12, 16)}.items():
        (root / "photos" / split).mkdir(parents=True)
        for number in numbers:
            stem = str(root / "photos" / split / f"{number:04}")
            cv2.imwrite(f"{stem}.jpg", cv2.cvtColor(rooms.image(number), cv2.COLOR_RGB2BGR))
            cv2.imwrite(f"{stem}_depth.png", (rooms.target(number, "depth") * 1000).astype(np.uint16))
            cv2.imwrite(f"{stem}_saliency.png", (rooms.target(number, "albedo").max(-1) * 255).astype(np.uint8))


def run(command, folder):
    """A line of README in ``folder``, which is no clone; ``symerge`` is the installed program's function."""
    prefix = f'symerge() {{ "{sys.executable}" -m symerge_dense.commands.cli "$@"; }}\n'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-c", prefix + command], cwd=folder, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """An empty folder with photos, the example's files and the first command run: the look in a minute."""
    folder = tmp_path_factory.mktemp("somewhere")
    write_photos(folder)
    files = dict(FILE.findall(EXAMPLE))
    assert list(files) == ["my_lab/saliency.py", "photos_symerge.py"]
    for name, code in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    (check,) = (line for line in EXAMPLE.splitlines() if line.startswith("python -m "))
    assert "All 23 contracts are kept." in run(check, folder)
    first, *others = (line for line in EXAMPLE.splitlines() if line.startswith("symerge "))
    (look,) = re.findall(r"`(--cfg-options base.pretrained=False[^`]*)`", EXAMPLE.replace("\n", " "))
    run(f"{first} {look}", folder)
    return folder, others, look


def test_the_example_trains_and_merges_as_printed(lab):
    folder, _, _ = lab
    results = json.loads((folder / "run" / "results.json").read_text())
    for row in ("experts", "average", "task_arithmetic", "initial", "merged"):
        assert list(results[row]["tasks"]) == ["saliency", "depth"]
        assert results[row]["tasks"]["saliency"]["abs"]["value"] > 0
    assert (folder / "run" / "panels.png").stat().st_size > 10_000


def test_the_other_commands_run_as_printed(lab):
    folder, (merge, compare, test), look = lab
    run(merge, folder)
    assert (folder / "ties.safetensors").exists()
    run(f"{compare} {look}", folder)
    rows = json.loads((folder / "table" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"experts", "symerge", "ties", "average"}
    assert all("error" not in row and "saliency" in row["tasks"] for row in rows)
    assert "saliency" in run(f"{test} {look}", folder)


def test_the_merged_model_predicts_as_printed_and_says_what_it_needs(lab):
    folder, _, _ = lab
    code = EXAMPLE[EXAMPLE.rindex("```python\n") + 10 : EXAMPLE.rindex("```")]
    (folder / "predict.py").write_text(code)
    assert run("python predict.py", folder).strip() == "torch.Size([1, 64, 96]) torch.Size([1, 64, 96])"
    (folder / "forgot.py").write_text(code.replace("import my_lab.saliency\n", ""))
    with pytest.raises(AssertionError, match=r"unknown task 'saliency'.*my_lab\.saliency"):
        run("python forgot.py", folder)


def test_every_file_and_target_that_readme_names_exists():
    example = {name for name, _ in FILE.findall(README)}
    named = set(re.findall(r"(?:configs|docs|tools|symerge_dense)/[\w/]+\.(?:py|md|png|sh)", README)) - example
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets) and README.index("make demo") < README.index("make test") < 1200
