"""Runs over seeds in one table, and beside a paper's numbers: every cell is recomputed here by hand."""

import copy
import json
import statistics
import subprocess
import sys

import pytest
from builders.pipeline_tiny import tool

from symerge_dense.report.paper_numbers import PUBLISHED
from symerge_dense.report.results import MERGED_ROWS, ROWS
from symerge_dense.report.run_tables import comparison, seeds_table
from symerge_dense.report.seeds import group, pooled, read_runs

PAPER = PUBLISHED["nyuv2-symerge"]
FACTORS = {("depth", "abs"): 100, ("depth", "rel"): 100}
MINE = {
    "experts": (50.0, 75.0, 0.40, 0.16, 24.0),
    "average": (30.0, 60.0, 0.60, 0.24, 30.0),
    "task_arithmetic": (32.0, 61.0, 0.55, 0.22, 31.0),
    "initial": (31.0, 61.0, 0.56, 0.22, 31.0),
    "merged": (49.0, 74.0, 0.42, 0.17, 25.0),
}


def record(seed=0, shift=0.0, **config):
    """results.json of a run whose merged mIoU is ``shift`` higher."""
    rows = {}
    for row, values in MINE.items():
        tasks = {}
        for column, value in zip(PAPER.columns, values, strict=True):
            entry = {"value": value, "higher_is_better": column.higher_is_better}
            tasks.setdefault(column.task, {})[column.metric] = entry
        tasks["depth"]["rmse"] = {"value": 0.5, "higher_is_better": False}
        rows[row] = {"tasks": tasks}
    rows["merged"]["tasks"]["segmentation"]["mIoU"]["value"] += shift
    facts = dict.fromkeys(("commit", "versions", "device", "timings", "peak_memory_mb"))
    delta = {row: {"mean": -1.0} for row in MERGED_ROWS}
    config = {"name": "nyuv2_symerge", "seed": seed, **config}
    return {**facts, "config": config, "seed": seed, **rows, "delta_m": delta}


def cells(markdown):
    """{row: {heading: cell}} of the one table in a text."""
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in markdown.splitlines() if "|" in line]
    heading = lines[0] if lines[0][0] == "" else ["", *lines[0]]
    return {line[0]: dict(zip(heading[1:], line[1:], strict=True)) for line in lines[2:]}


def test_seeds_are_pooled_and_configurations_kept_apart():
    runs = [record(0), record(1, 1.0), record(0, evaluation={"protocol": "libmtl"})]
    groups = group(runs)
    assert {title: len(members) for title, members in groups.items()} == {"nyuv2_symerge": 2, "nyuv2_symerge (2)": 1}
    entry = pooled(groups["nyuv2_symerge"])["merged"]["tasks"]["segmentation"]["mIoU"]
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


def test_a_run_stands_beside_the_paper_in_the_papers_units():
    table = cells(comparison("run", [record()], PAPER).split("\n\n")[1])
    assert list(table) == [row.method for row in PAPER.rows.values()]
    for row, printed in PAPER.rows.items():
        for index, column in enumerate(PAPER.columns):
            paper = table[printed.method][f"{column.title} paper"]
            assert float(paper.split(" ± ")[0]) == printed.values[index]
            mine = table[printed.method][f"{column.title} yours"]
            factor = FACTORS.get((column.task, column.metric), 1)
            assert mine == (f"{MINE[row][index] * factor:.1f}" if row in MINE else "–")
    assert table["SyMerge"]["mIoU ↑ paper"] == "49.8 ± 0.3"
    # as the facts about the page state them, computed there from its rows
    for method, task_mean, metric_mean in (("Weight averaging", -26.3, -26.8), ("SyMerge", -6.7, -6.4)):
        assert float(table[method]["Δm task_mean % paper"]) == task_mean
        assert float(table[method]["Δm metric_mean % paper"]) == metric_mean


def test_a_run_without_a_papers_task_is_refused():
    run = record()
    for row in ROWS:
        del run[row]["tasks"]["normals"]
    with pytest.raises(ValueError, match="run has no normals/mean"):
        comparison("run", [run], PAPER)


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


def test_a_record_without_published_metrics_needs_the_registry_and_says_so(capsys):
    old = {**renamed(record(), "depth", "surface"), "delta_m_metrics": FACTS["delta_m_metrics"]}
    table = cells(seeds_table("run", [old]).split("\n\n")[1])
    assert table["SyMerge"]["Δm headline % ↑"] == "–"
    assert "no Delta_m: unknown task 'surface'" in capsys.readouterr().err


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
from symerge_dense.report.run_tables import comparison, seeds_table
from symerge_dense.report.seeds import read_runs
print(seeds_table("mine", read_runs(sys.argv[1:3])))
print(comparison("mine", read_runs(sys.argv[3:5]), PUBLISHED["nyuv2-symerge"]))
print("torch" in sys.modules)
"""
    files = [tmp_path / name for name in ("0.json", "1.json", "depth0.json", "depth1.json")]
    done = subprocess.run([sys.executable, "-c", program, *map(str, files)], capture_output=True, text=True, check=True)
    *tables, torch_is_there = done.stdout.strip().splitlines()
    assert torch_is_there == "False"
    assert "\n".join(tables).startswith(seeds_table("mine", read_runs(files[:2])))
    assert comparison("mine", read_runs(files[2:]), PAPER).strip() in "\n".join(tables)


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
    assert "2 runs, seed 0, 1" in printed and printed.count("**nyuv2_symerge**") == 2
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    assert tool("report.py", "table", *folders, tmp_path / "unfinished", "--out", tmp_path / "t.md") == 0
    assert "unfinished is not finished yet" in capsys.readouterr().err
    assert (tmp_path / "t.md").read_text() == seeds_table("nyuv2_symerge", read_runs(folders))
    assert tool("report.py", "table", tmp_path / "seed0", "--paper", "nyuv2-symerg") == 2
    assert "Did you mean 'nyuv2-symerge'" in capsys.readouterr().err
    assert tool("report.py", "table", tmp_path) == 2
    assert f"such as {tmp_path / 'seed0' / 'results.json'}" in capsys.readouterr().err
