"""Runs over seeds in one table, and beside a paper's numbers: every cell is recomputed here by hand."""

import copy
import json
import statistics
import subprocess
import sys

import pytest
from builders.pipeline_tiny import ENV, tool
from builders.prepared_python import Python
from builders.run_records import PAPER, cells, record, write

from symerge_dense.report.paper_tables import beside_paper, of_runs
from symerge_dense.report.records import read_records
from symerge_dense.report.results import MERGED_ROWS, ROWS
from symerge_dense.report.run_tables import seeds_table
from symerge_dense.report.seeds import group, pooled


def test_seeds_are_pooled_and_configurations_kept_apart():
    runs = [record(0), record(1, 1.0), record(0, evaluation={"protocol": "libmtl"})]
    groups = group(runs)
    assert {title: len(members) for title, members in groups.items()} == {
        "nyuv2_symerge (evaluation.protocol not set)": 2,
        "nyuv2_symerge (evaluation.protocol=libmtl)": 1,
    }
    entry = pooled(groups["nyuv2_symerge (evaluation.protocol not set)"])["merged"]["tasks"]["segmentation"]["mIoU"]
    assert entry["value"] == 49.5 and entry["std"] == pytest.approx(statistics.stdev([49.0, 50.0]))
    assert "std" not in pooled(runs[:1])["merged"]["tasks"]["segmentation"]["mIoU"]


def test_runs_measured_differently_are_not_pooled():
    other = record(1)
    del other["merged"]["tasks"]["depth"]["rmse"]
    with pytest.raises(ValueError, match=r"merged/depth/rmse.*one protocol"):
        pooled([record(0), other])
    with pytest.raises(ValueError, match="no run"):
        pooled([])


def test_the_table_over_seeds_has_every_metric_and_all_definitions_of_delta_m():
    table = cells(seeds_table("run", [record(0), record(1, 2.0)]).split("\n\n")[1])
    assert list(table) == list(ROWS.values())
    merged = table["SyMerge"]
    assert merged["segmentation mIoU ↑"] == "50.00 ± 1.41" and merged["depth rmse ↓"] == "0.5000 ± 0.0000"
    headline = [100 * ((49 + s) / 50 - 1) / 3 + (-5.0 - 100 / 24) / 3 for s in (0, 2)]
    assert merged["Δm headline % ↑"] == f"{statistics.fmean(headline):+.2f} ± {statistics.stdev(headline):.2f}"
    inside = [((100 * ((49 + s) / 50 - 1) - 100 / 75) / 2 + (-5.0 - 6.25) / 2 - 100 / 24) / 3 for s in (0, 2)]
    assert merged["Δm task_mean % ↑"] == f"{statistics.fmean(inside):+.2f} ± {statistics.stdev(inside):.2f}"
    flat = [(100 * ((49 + s) / 50 - 1) - 100 / 75 - 5.0 - 6.25 - 100 / 24) / 5 for s in (0, 2)]
    assert merged["Δm metric_mean % ↑"] == f"{statistics.fmean(flat):+.2f} ± {statistics.stdev(flat):.2f}"
    assert table["experts"]["Δm headline % ↑"] == "–"


def renamed(run, task, name):
    """A copy of ``run`` that calls a task by another name."""
    run = copy.deepcopy(run)
    for row in ROWS:
        run[row]["tasks"] = {name if key == task else key: entry for key, entry in run[row]["tasks"].items()}
    return run


FACTS = {
    "delta_m_metrics": {"segmentation": "mIoU", "surface": "abs", "normals": "mean"},
    "published_metrics": {"segmentation": ["mIoU", "pixel_accuracy"], "surface": ["abs", "rel"], "normals": ["mean"]},
}


def test_a_task_of_another_package_has_its_delta_m_without_its_module(capsys):
    """No task is called surface here: the record says which of its metrics count."""
    foreign = renamed(record(), "depth", "surface")
    known = cells(seeds_table("run", [record()]).split("\n\n")[1])
    table = cells(seeds_table("run", [{**foreign, **FACTS}]).split("\n\n")[1])
    for definition in ("headline", "task_mean", "metric_mean"):
        column = f"Δm {definition} % ↑"
        assert [line[column] for line in table.values()] == [line[column] for line in known.values()]
        assert table["SyMerge"][column] != "–"
    assert capsys.readouterr().out == ""
    by_rmse = {**FACTS, "delta_m_metrics": {**FACTS["delta_m_metrics"], "surface": "rmse"}}
    table = cells(seeds_table("run", [{**foreign, **by_rmse}]).split("\n\n")[1])
    assert float(table["SyMerge"]["Δm headline % ↑"]) == pytest.approx((-2.0 + 0.0 - 100 / 24) / 3, abs=0.006)


@pytest.fixture
def old():
    """A record of an earlier version with a task of another package, which is not imported."""
    return {**renamed(record(), "depth", "surface"), "delta_m_metrics": FACTS["delta_m_metrics"]}


def test_the_stored_delta_m_stands_where_a_task_is_not_known(old):
    text = seeds_table("run", [old])
    table = cells(text.split("\n\n")[1])
    assert table["SyMerge"]["Δm headline % ↑"] == "-1.00"
    assert table["SyMerge"]["Δm task_mean % ↑"] == "–"
    (reason,) = {line.split(":", 1)[1] for line in text.splitlines() if line.startswith("– no Δm")}
    assert "'surface'" in reason and reason.endswith("Import the module that does: --import MODULE.")
    other = {**old, "delta_m": {row: {"mean": -3.0} for row in MERGED_ROWS}}
    assert cells(seeds_table("run", [old, other]))["SyMerge"]["Δm headline % ↑"] == "-2.00 ± 1.41"


def test_an_unknown_task_is_said_to_be_of_the_module_that_registered_it(old):
    text = seeds_table("run", [{**old, "plugins": {"task surface": "my_lab.surface"}}])
    assert "registered by module my_lab.surface: import that module first (--import my_lab.surface" in text
    text = seeds_table("run", [{**old, "plugins": {"task surface": "x; rm -rf"}}])
    assert "'x; rm -rf', which is no name of a module" in text and "--import x" not in text


def test_a_run_that_comes_twice_is_named_twice(tmp_path):
    assert "2 runs, seeds 0, 0," in seeds_table("run", [record(0), record(0)])
    (tmp_path / "results.json").write_text(json.dumps(record()))
    runs, *_ = read_records([tmp_path, tmp_path / "results.json"])  # the same file is one run
    assert len(runs) == 1 and runs[0].folder == tmp_path


def contents(paths):
    return [run.content for run in read_records(paths).runs]


def test_tables_of_finished_runs_need_no_torch(tmp_path):
    for seed in (0, 1):
        run = {**renamed(record(seed, seed), "depth", "surface"), **FACTS}
        (tmp_path / f"{seed}.json").write_text(json.dumps(run))
        facts = {key: {"depth" if task == "surface" else task: of for task, of in FACTS[key].items()} for key in FACTS}
        (tmp_path / f"depth{seed}.json").write_text(json.dumps({**record(seed, seed), **facts}))
    program = """
import sys
import symerge_dense.report.table
from symerge_dense.report.paper_numbers import PUBLISHED
from symerge_dense.report.paper_tables import beside_paper, of_runs
from symerge_dense.report.records import read_records
from symerge_dense.report.run_tables import seeds_table
def runs(paths):
    return [run.content for run in read_records(paths).runs]
print(seeds_table("mine", runs(sys.argv[1:3])))
print(beside_paper(of_runs("mine", runs(sys.argv[3:5])), PUBLISHED["nyuv2-symerge"]))
print("torch" in sys.modules)
"""
    files = [tmp_path / name for name in ("0.json", "1.json", "depth0.json", "depth1.json")]
    done = subprocess.run([sys.executable, "-c", program, *map(str, files)], capture_output=True, text=True, check=True)
    *tables, torch_is_there = done.stdout.strip().splitlines()
    assert torch_is_there == "False"
    assert "\n".join(tables).startswith(seeds_table("mine", contents(files[:2])))
    assert beside_paper(of_runs("mine", contents(files[2:])), PAPER).strip() in "\n".join(tables)


def test_an_undefined_metric_is_a_dash_and_not_a_crash():
    run = copy.deepcopy(record())
    run["experts"]["tasks"]["segmentation"]["mIoU"]["value"] = None
    run["merged"]["tasks"]["depth"]["abs"]["value"] = None
    table = cells(seeds_table("run", [run]).split("\n\n")[1])
    assert table["SyMerge"]["depth abs ↓"] == "–" and table["SyMerge"]["Δm headline % ↑"] == "–"


def test_the_tool_prints_writes_and_refuses(tmp_path, capsys):
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "results.json").write_text(json.dumps(record(seed, seed)))
    folders = [tmp_path / "seed0", tmp_path / "seed1" / "results.json"]
    assert tool("report.py", "table", *folders, "--paper", "nyuv2-symerge") == 0
    printed = capsys.readouterr().out
    assert "2 runs, seeds 0, 1" in printed and printed.count("**nyuv2_symerge**") == 2
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    assert tool("report.py", "table", *folders, tmp_path / "unfinished", "--out", tmp_path / "t.md") == 0
    assert "unfinished is not finished yet" in capsys.readouterr().err
    assert (tmp_path / "t.md").read_text() == seeds_table("nyuv2_symerge", contents(folders))
    assert tool("report.py", "table", tmp_path / "seed0", "--paper", "nyuv2-symerg") == 2
    assert "Did you mean 'nyuv2-symerge'" in capsys.readouterr().err
    assert tool("report.py", "table", tmp_path) == 2
    assert f"such as {tmp_path / 'seed0' / 'results.json'}" in capsys.readouterr().err


def test_plugins_that_are_not_there_at_report_time_leave_no_silent_dash(tmp_path, old):
    new = {**old, **FACTS, "plugins": {"task surface": "my_lab.surface"}}
    for name, content in {"new": new, "old": {**old, "plugins": new["plugins"]}}.items():
        folder = write(tmp_path / name, "results.json", content)
        printed = Python("-m", "symerge_dense.commands.cli", "report", "table", folder, env=ENV).printed()
        row = cells(printed.split("\n\n")[1])["SyMerge"]
        assert "–" not in (row["Δm headline % ↑"], row["surface rmse ↓"])
        assert (row["Δm task_mean % ↑"] == "–") == (name == "old")
        assert ("--import my_lab.surface" in printed) == (name == "old")
