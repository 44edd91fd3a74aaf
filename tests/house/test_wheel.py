"""The wheel, installed into an environment of its own and used from an empty folder: no clone is near."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from builders.prepared_python import NETWORK_WORDS

ROOT = Path(__file__).resolve().parents[2]
SIZES = [f"data.{split}.{key}" for split in ("train", "unlabelled", "test") for key in ("count=8", "size=32,48")]
TINY = [*SIZES, "base.train.recipe.epochs=1", "experts.recipe.epochs=1", "adaptation.rounds=2"]
TINY += ["adaptation.batch_size=4", "baselines.scales=[0.3]", *NETWORK_WORDS]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(the program ``symerge`` of an environment with the wheel, an empty folder). Libraries are this environment's."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source, venv, empty = folder / "source", folder / "venv", folder / "empty"
    empty.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = files.stdout.splitlines() if files.returncode == 0 else []
    if not names:
        pytest.skip("no checkout: the files of a release cannot be told from others")
    for name in names:
        if (ROOT / name).is_file() and name.startswith(
            ("symerge_dense/", "configs/", "README", "LICENSE", "setup.py", "py")
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True, cwd=folder
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (wheel,) = folder.glob("*.whl")
    (site,) = venv.glob("lib/python*/site-packages")
    subprocess.run([*pip, "--python", str(venv / "bin/python"), "install", "--no-deps", str(wheel)], check=True)
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # after the venv's own folder
    return venv / "bin" / "symerge", empty


def clean():
    """The environment without what could show this checkout to the installed program."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


def run(installed, *words):
    program, folder = installed
    result = subprocess.run(
        [str(program), *words], cwd=folder, env=clean(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


def test_the_package_is_the_wheels(installed):
    python = installed[0].with_name("python")
    code = "import symerge_dense; print(symerge_dense.__file__)"
    found = subprocess.run(
        [str(python), "-c", code], cwd=installed[1], env=clean(), capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(installed[0].parents[1]))


def test_configs_come_with_it(installed):
    names = {path.stem for part in (".", "ablation") for path in (ROOT / "configs" / part).glob("*.py")}
    assert {line.split()[0] for line in run(installed, "config", "list").splitlines()} == names
    run(installed, "config", "copy", "nyuv2_symerge", ".")
    assert (installed[1] / "nyuv2_symerge.py").is_file() and (installed[1] / "_base_" / "nyuv2.py").is_file()


def test_the_main_job_and_what_follows_run_in_an_empty_folder(installed):
    run(installed, "train", "rooms_symerge", "--work-dir", "run", "--cfg-options", *TINY)
    folder = installed[1] / "run"
    assert {"segmentation", "depth", "normals"} == set(
        json.loads((folder / "results.json").read_text())["merged"]["tasks"]
    )
    assert "mIoU" in run(installed, "test", "rooms_symerge", "run/merged.safetensors", "--cfg-options", *TINY)
    assert "SyMerge" in run(installed, "report", "table", "run")
    run(installed, "report", "page", "run", "--out", "report.html")
    page = (installed[1] / "report.html").read_text("utf-8")
    assert 'class="slider' in page.replace("stage ", "") and "aria-sort" in page
