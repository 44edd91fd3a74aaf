"""A study from nothing to its verdict: what is kept, what a kill leaves, and that processes change nothing."""

import json
import shutil
import time

import pytest
from builders.pipeline_tiny import ENV, ROOT, tool
from builders.prepared_python import torchrun
from builders.studies import write_study_config
from faults.jobs import half_written

from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.execution import run_study
from symerge_dense.studies.frame.outputs import FILES
from symerge_dense.studies.frame.page import write_page
from symerge_dense.studies.frame.plan import load_plan

LABELS = ("task arithmetic", "joint")


class Small(STUDIES["parts"]):
    """Two runs, and an end after so many of them."""

    left = 100

    def grid(self, tasks):
        methods = [("task_arithmetic", {"scale": 0.3}), ("symerge", {"rounds": 2})]
        return [
            {"label": label, "method": method, "options": options}
            for label, (method, options) in zip(LABELS, methods, strict=True)
        ]

    def measure(self, laboratory, run):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().measure(laboratory, run)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


def small(home, left=100):
    plan = load_plan(str(write_study_config(home)))
    plan.study = Small()
    plan.study.left = left
    return plan


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES if name != "costs.json"}


@pytest.fixture(scope="module")
def whole(home):
    """The folder of a study that nothing has interrupted."""
    run_study(small(home), str(home / "whole"), cache=str(home / "cache"))
    return home / "whole"


def test_a_killed_study_ends_as_an_unbroken_one(home, whole):
    with pytest.raises(KeyboardInterrupt):
        run_study(small(home, left=1), str(home / "killed"), cache=str(home / "other"))
    assert len(list((home / "other" / "runs").glob("method-*.json"))) == 1
    resumed = small(home)
    run_study(resumed, str(home / "killed"), resume=True, cache=str(home / "other"))
    assert resumed.study.left == 99, "the finished run was kept"
    assert content(home / "killed") == content(whole)


def test_runs_are_shared_between_studies_and_a_half_written_one_is_made_anew(home, whole):
    again = small(home)
    run_study(again, str(home / "again"), cache=str(home / "cache"))
    assert again.study.left == 100 and content(home / "again") == content(whole)
    path = next((home / "cache" / "runs").glob("method-*.json"))
    path.write_text(path.read_text()[:100])
    mended = small(home)
    run_study(mended, str(home / "again"), resume=True, cache=str(home / "cache"))
    assert mended.study.left == 99 and content(home / "again") == content(whole)


def test_the_record_has_every_run_and_what_decides(whole):
    record = json.loads((whole / "study.json").read_text())
    assert [run["label"] for run in record["runs"]] == list(LABELS)
    assert {"delta_m", "delta_m/depth", "depth/abs", "segmentation/mIoU"} <= set(record["rows"]["joint"])
    assert record["verdict"]["outcome"] == "inconclusive", "one seed decides nothing"
    assert record["rows"]["joint"]["delta_m"]["low"] is None and record["seeds"] == 1
    costs = json.loads((whole / "costs.json").read_text())
    assert all(run["seconds"] > run["method_seconds"] > 0 for run in costs["runs"]) and costs["device"]
    assert all(run["peak_memory_mb"] is None or run["peak_memory_mb"] > 10 for run in costs["runs"])
    text = (whole / "study.md").read_text()
    assert record["claim"] in text and record["rule"] in text and "| joint |" in text
    assert (whole / "study.csv").read_text().count("\n") == 3


def test_a_folder_with_a_study_is_not_overwritten(home, whole):
    with pytest.raises(ValueError, match="--resume"):
        run_study(small(home), str(whole), cache=str(home / "cache"))
    with pytest.raises(ValueError, match="give at least 1"):
        run_study(small(home), str(whole), True, str(home / "cache"), jobs=0)
    with pytest.raises(ValueError, match="give one"):
        run_study(small(home), str(whole), True, str(home / "cache"), jobs=2, on="ray")


def quick(home):
    return load_plan(str(write_study_config(home)), True, 1)


@pytest.fixture(scope="module")
def here(home):
    """The folder of a study that one process has made."""
    run_study(quick(home), str(home / "here"), cache=str(home / "cache-here"))
    return home / "here"


def test_a_cluster_gives_what_this_machine_gives(home, here, request):
    request.addfinalizer(pytest.importorskip("ray").shutdown)
    run_study(quick(home), str(home / "there"), cache=str(home / "cache-there"), on="ray")
    assert content(home / "there") == content(here)


DYING = """
import os, signal

from symerge_dense.studies.frame import cache

write = cache.RunCache.write


def dying(self, kind, *given):
    write(self, kind, *given)
    if kind == "method" and os.environ["RANK"] == "1" and os.path.exists("order"):
        os.remove("order")
        os.kill(os.getpid(), signal.SIGKILL)


cache.RunCache.write = dying
"""


def test_four_processes_share_the_runs_and_one_that_is_killed_ends_all_with_one_message(home, here):
    shutil.rmtree(home / "rooms")  # the four begin with nothing
    shutil.rmtree(home / "experts")
    (home / "dying.py").write_text(DYING)
    (home / "order").touch()
    words = [ROOT / "tools" / "study.py", write_study_config(home), "--quick", "--seeds", 1, "--launcher", "pytorch"]
    words += ["--work-dir", home / "shared", "--cache", home / "cache-shared"]
    began, killed = time.monotonic(), torchrun(4, *words, "--import", "dying", folder=home, env=ENV)
    complaints = killed.communicate()[1]
    assert killed.returncode and time.monotonic() - began < 60 and not (home / "order").exists()
    assert [line for line in complaints.splitlines() if "--resume" in line] == [
        "interrupted; finished runs are kept; go on with --resume"
    ]
    assert not half_written(home / "cache-shared") and not (home / "shared" / "study.json").exists()
    printed = torchrun(4, *words, "--resume", folder=home, env=ENV).printed()
    assert content(home / "shared") == content(here)
    assert printed.count("runs of") == 1, "one process shows the progress"
    kept = [{path.name for path in (home / cache / "runs").iterdir()} for cache in ("cache-shared", "cache-here")]
    assert kept[0] == kept[1]


def test_a_launcher_needs_torchrun_and_is_one_place_of_several(home, monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="start this by torchrun"):
        run_study(small(home), str(home / "none"), launcher="pytorch")
    with pytest.raises(ValueError, match=r"--jobs 2 and --launcher pytorch: .* give one"):
        run_study(small(home), str(home / "none"), jobs=2, launcher="pytorch")
    assert not (home / "none").exists()


def test_the_page_has_verdicts_on_top_and_a_section_each(home, whole, tmp_path):
    root = tmp_path / "studies"
    for name, quick in (("parts", False), ("parts-quick", True)):
        record = json.loads((whole / "study.json").read_text()) | {"name": "parts", "quick": quick}
        (root / name).mkdir(parents=True)
        (root / name / "study.json").write_text(json.dumps(record))
        for file in ("study.png", "costs.json"):
            (root / name / file).write_bytes((whole / file).read_bytes())
    (root / "parts" / "costs.png").write_bytes(b"what they cost")
    (tmp_path / "docs" / "studies").mkdir(parents=True)
    (tmp_path / "docs" / "studies" / "parts.md").write_text("What surprised: nothing.")
    write_page(str(root), str(tmp_path / "docs" / "studies.md"))
    text = (tmp_path / "docs" / "studies.md").read_text()
    assert text.count("\n## ") == 1 and "What surprised: nothing." in text and "**inconclusive**" in text
    assert text.index("| study |") < text.index("\n## ") and "](studies/parts.png)" in text
    assert (tmp_path / "docs" / "studies" / "parts.png").read_bytes() == (whole / "study.png").read_bytes()
    assert "](studies/parts-costs.png)" in text and "peak memory" in text
    assert (tmp_path / "docs" / "studies" / "parts-costs.png").read_bytes() == b"what they cost"
    (root / "parts" / "study.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        write_page(str(root), str(tmp_path / "docs" / "studies.md"))
    with pytest.raises(ValueError, match="symerge study NAME"):
        write_page(str(tmp_path / "nothing"), str(tmp_path / "docs" / "studies.md"))


def test_the_command_lists_studies_and_refuses_an_unknown_one(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tool("study.py", "--list") == 0
    assert "parts" in capsys.readouterr().out
    assert tool("study.py", "prats") == 2 and "Did you mean 'parts'" in capsys.readouterr().err
    assert tool("study.py") == 2 and "--list" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
