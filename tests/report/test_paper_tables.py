"""Own numbers beside a paper's: every cell by hand, and nothing that could not be compared."""

import pytest
from builders.pipeline_tiny import tool
from builders.run_records import MINE, PAPER, cells, comparison, record, write

from symerge_dense.report.paper_numbers import PUBLISHED
from symerge_dense.report.paper_tables import beside_paper, departures, of_comparison, of_runs
from symerge_dense.report.results import ROWS

FACTORS = {("depth", "abs"): 100, ("depth", "rel"): 100}
TEST = {"type": "symerge_dense.datasets.nyuv2.mtan.NYUv2", "root": "data/nyuv2", "split": "val"}


def table_of(text):
    return cells(text.split("\n\n")[-1])


def test_a_run_stands_beside_the_paper_in_the_papers_units():
    table = table_of(beside_paper(of_runs("run", [record()]), PAPER))
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
        beside_paper(of_runs("run", [run]), PAPER)


@pytest.mark.parametrize("paper", PUBLISHED.values())
@pytest.mark.parametrize(
    "data, found",
    [
        ({"type": "symerge_dense.datasets.rooms.dataset.Rooms", "split": "test"}, r"on Rooms \(test\)"),
        ({"type": "symerge_dense.datasets.cityscapes.Cityscapes", "split": "val"}, r"on Cityscapes \(val\)"),
        ({"type": "my_lab.photos.Photos"}, "on Photos"),
        ({**TEST, "split": "train"}, r"on NYUv2 \(train\)"),
    ],
)
def test_numbers_of_other_data_are_refused(paper, data, found):
    """However much the names of tasks and metrics agree."""
    with pytest.raises(ValueError, match=rf"run was measured {found}, .* on NYUv2 \(val\).*leave --paper out"):
        beside_paper(of_runs("run", [record(data={"test": data})]), paper)


def test_what_differs_from_the_papers_setting_stands_above_the_table():
    same = {
        "data": {"test": TEST},
        "backbone": {"name": "resnet50.tv_in1k"},
        "tasks": {"segmentation": {"classes": 13}},
    }
    assert departures(of_runs("run", [record(**same)]), PAPER) == []
    assert "Not the paper's setting" not in beside_paper(of_runs("run", [record(**same)]), PAPER)
    other = {
        "data": {"test": {**TEST, "size": [144, 192]}},
        "backbone": {"name": "vit_small_patch14_dinov2"},
        "tasks": {"segmentation": {"classes": 40}},
        "evaluation": {"protocol": "mtan"},
    }
    run = record(**other)
    for row in ROWS:
        run[row]["tasks"]["edges"] = {"f1": {"value": 1.0, "higher_is_better": True}}
    told = {
        "backbone vit_small_patch14_dinov2 (paper: resnet50)",
        "image size [144, 192] (paper: [288, 384])",
        "classes 40 (paper: 13)",
        "merged together with edges",
    }
    assert set(departures(of_runs("run", [run]), PAPER)) == told
    fusionbench = set(departures(of_runs("run", [run]), PUBLISHED["nyuv2-fusionbench"]))
    assert fusionbench - told == {"protocol mtan (paper: libmtl)"}
    text = beside_paper(of_runs("run", [run]), PAPER)
    assert text.index("Not the paper's setting: backbone vit_small") < text.index("| mIoU")


def test_a_comparison_fills_the_rows_of_its_methods():
    table = table_of(beside_paper(of_comparison(comparison(data={"test": TEST})), PAPER))
    assert table["SyMerge"]["mIoU ↑ yours"] == "49.0 ± 0.5" and table["TIES"]["AErr cm ↓ yours"] == "60.0"
    assert table["Individual"]["mIoU ↑ yours"] == "50.0" and table["EMR"]["mIoU ↑ yours"] == "–"  # it failed
    assert table["TIES"]["Δm task_mean % yours"] == f"{((-40 - 20) / 2 + (-50 - 50) / 2 - 25) / 3:+.1f}"
    unmeasured = comparison()
    unmeasured["rows"] = unmeasured["rows"][1:]
    with pytest.raises(ValueError, match=r"no row of the experts.*--resume"):
        of_comparison(unmeasured)


def test_the_tool_reads_folders_of_comparisons(tmp_path, capsys):
    folder = write(tmp_path / "compared", "compare.json", comparison())
    run = write(tmp_path / "run", "results.json", record(data={"test": TEST}))
    assert tool("report.py", "table", folder, run, "--paper", "nyuv2-symerge") == 0
    printed = capsys.readouterr().out
    assert "nyuv2_symerge, compared** (2 runs per method" in printed and "| ties | -28" in printed
    assert "emr failed: RuntimeError: no" in printed and "**nyuv2_symerge** (1 run, seed 0" in printed
    rooms = write(tmp_path / "rooms", "results.json", record(data={"test": {"type": "x.Rooms"}}))
    assert tool("report.py", "table", rooms, "--paper", "nyuv2-symerge") == 2
    assert "measured on Rooms" in capsys.readouterr().err
