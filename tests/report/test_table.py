"""The table: its cells are the inputs, its bold the best merged model."""

import copy
import io
import re

import pytest
from rich.console import Console

from symerge_dense.report.agreement import AGREEMENT_ROWS, print_record
from symerge_dense.report.results import MERGED_ROWS, ROWS
from symerge_dense.report.table import columns, print_results, row_title

METRICS = {
    "segmentation": {"mIoU": True, "pixAcc": True},
    "depth": {"abs": False, "rel": False},
    "normals": {"mean": False, "median": False, "11.25": True, "22.5": True, "30": True},
}
MIOU = dict(zip(ROWS, (48.216, 20.0, 31.118, 33.5, 47.1), strict=True))


@pytest.fixture
def results():
    rows = {}
    for number, row in enumerate(ROWS):
        tasks = {
            task: {
                metric: {"value": 0.1 * (number + 1) * position, "higher_is_better": higher}
                for position, (metric, higher) in enumerate(metrics.items(), start=1)
            }
            for task, metrics in METRICS.items()
        }
        tasks["segmentation"]["mIoU"]["value"] = MIOU[row]
        rows[row] = {"tasks": tasks}
    rows["task_arithmetic"]["scale"] = 0.3
    delta = {row: {"mean": mean} for row, mean in zip(MERGED_ROWS, (-30.0, -20.5, -11.0, 1.254), strict=True)}
    run = dict.fromkeys(("config", "seed", "commit", "versions", "device", "timings", "peak_memory_mb"))
    return {**run, **rows, "delta_m": delta}


def shown(results, width=300):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    print_results(results, console)
    return console.file.getvalue()


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def parsed(results):
    """(tasks, headings with their arrows, {row title: cells}) as a wide terminal shows them; the best as '*number*'."""
    lines = [line for line in re.sub(r"\x1b\[1;32m([^\x1b]*)", mark, shown(results)).splitlines() if line.strip()]
    _, tasks, headings, _, *rows = [plain(line).replace("│", " ") for line in lines]
    titles = {row_title(results, row): row for row in ROWS}
    found = [(title, line) for title in titles for line in rows if line.strip().startswith(title)]
    table = {title: line.replace(title, "").split() for title, line in found}
    return tasks.split(), re.findall(r"(\S+(?: %)?) ([↑↓])", headings), table


def mark(found):
    """A bold green number between stars."""
    return re.sub(r"[-+]?\d[\d.]*", lambda number: f"*{number[0]}*", found[1])


def test_there_is_a_column_per_metric_and_delta_m(results):
    tasks, headings, rows = parsed(results)
    arrows = {True: "↑", False: "↓"}
    assert tasks == [*METRICS, "mean"]
    expected = [(metric, arrows[up]) for metrics in METRICS.values() for metric, up in metrics.items()]
    assert headings == [*expected, ("Δm %", "↑")]
    assert list(rows) == ["experts", "average", "task arithmetic λ=0.3", "initial merge", "SyMerge"]


def test_cells_are_the_inputs(results):
    _, _, rows = parsed(results)
    for row in ROWS:
        values = [entry["value"] for metrics in results[row]["tasks"].values() for entry in metrics.values()]
        cells = [float(cell.strip("*")) for cell in rows[row_title(results, row)][:-1]]
        assert cells == pytest.approx(values, abs=6e-3)
    assert [rows[row_title(results, row)][-1] for row in ROWS] == ["–", "-30.00", "-20.50", "-11.00", "*+1.25*"]


def test_bold_marks_the_best_merged_row_and_never_the_experts(results):
    _, _, rows = parsed(results)
    assert not any("*" in cell for cell in rows["experts"])
    assert [title for title, cells in rows.items() if "*" in cells[0]] == ["SyMerge"]  # the highest but the experts'
    assert [title for title, cells in rows.items() if "*" in cells[2]] == ["average"]  # the lowest depth error
    assert [title for title, cells in rows.items() if "*" in cells[6]] == ["SyMerge"]  # the highest share of angles


def test_a_tie_in_print_is_a_tie(results):
    results["initial"]["tasks"]["segmentation"]["mIoU"]["value"] = MIOU["merged"] + 1e-6
    _, _, rows = parsed(results)
    assert [title for title, cells in rows.items() if "*" in cells[0]] == ["initial merge", "SyMerge"]


@pytest.mark.parametrize("largest, text", [(0.5, "0.1235"), (5.0, "0.123"), (50.0, "0.12"), (5000.0, "0.12")])
def test_decimals_follow_the_largest_value_of_the_column(results, largest, text):
    results["merged"]["tasks"]["depth"]["rel"]["value"] = 0.123456
    results["average"]["tasks"]["depth"]["rel"]["value"] = largest
    column = next(column for column in columns(results, ["depth"]) if column.metric == "rel")
    assert column.text("merged") == text


@pytest.mark.parametrize("undefined", [None, float("nan")])
def test_an_undefined_number_is_a_dash_and_never_the_best(results, undefined):
    results["merged"]["tasks"]["segmentation"]["mIoU"]["value"] = undefined
    results["delta_m"]["merged"]["mean"] = undefined
    _, _, rows = parsed(results)
    assert rows["SyMerge"][0] == rows["SyMerge"][-1] == "–"
    assert "*" in rows["initial merge"][0]


def test_a_column_without_any_number_is_drawn(results):
    for row in ROWS:
        results[row]["tasks"]["depth"]["abs"]["value"] = None
    _, _, rows = parsed(results)
    assert {cells[2] for cells in rows.values()} == {"–"}


def test_each_task_is_named_once_above_its_metrics(results):
    printed = plain(shown(results))
    assert all(printed.count(task) == 1 for task in METRICS)


@pytest.mark.parametrize("width", [50, 72, 90, 400])
def test_a_narrow_terminal_gets_several_tables_and_loses_no_number(results, width):
    printed = plain(shown(results, width))
    assert "…" not in printed and max(map(len, printed.splitlines())) <= width
    cells = [cell.strip("*") for cell in parsed(results)[2]["SyMerge"]]
    lines = [line for line in printed.splitlines() if line.strip().startswith("SyMerge")]
    numbers = [number for line in lines for number in line.replace("│", " ").split()[1:-1]]
    assert numbers == cells[:-1]
    assert (len(lines) == 1) == (width == 400)


def test_text_in_brackets_is_printed_as_it_is(results):
    for row in ROWS:
        results[row]["tasks"]["[red]x"] = results[row]["tasks"].pop("depth")
    assert "[red]x" in plain(shown(results))


def test_task_arithmetic_without_a_scale_has_its_plain_name(results):
    del results["task_arithmetic"]["scale"]
    assert row_title(results, "task_arithmetic") == "task arithmetic"


def test_incomplete_results_are_refused(results):
    broken = copy.deepcopy(results)
    del broken["merged"]
    with pytest.raises(ValueError, match=r"merged\.tasks"):
        print_results(broken, Console())


@pytest.mark.parametrize("width", [80, 300])
def test_a_run_without_labels_shows_every_metric_of_four_tasks_on_any_console(results, width):
    every = {**METRICS, "edges": {"precision": True, "recall": True}}
    entry = {"value": 12.5, "higher_is_better": True}
    rows = {
        row: {"tasks": {task: {metric: dict(entry) for metric in metrics} for task, metrics in every.items()}}
        for row in AGREEMENT_ROWS
    }
    run = {key: value for key, value in results.items() if key not in (*ROWS, "delta_m")}
    run["agreement"] = {"held_out_images": 7, "rows": rows}
    console = Console(file=io.StringIO(), width=width)
    print_record(run, console)
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines()) and "…" not in text
    assert text.count("agreement with the experts on 7 held-out images") == 1
    metrics = [f"{metric} ↑" for metrics in every.values() for metric in metrics]
    assert re.findall(r"(\S+ ↑)", text) == metrics and text.count("12.50") == len(AGREEMENT_ROWS) * len(metrics)
    assert "task arithmetic" not in text and "Δm" not in text


def test_experts_that_see_several_views_are_a_reference_and_never_the_best(results):
    best = {
        task: {name: {"value": 99.0 if up else 0.01, "higher_is_better": up} for name, up in metrics.items()}
        for task, metrics in METRICS.items()
    }
    seen = {**results, "experts_views": {"tasks": best}}
    with pytest.raises(ValueError, match=r"delta_m\.experts_views\.mean"):
        columns(seen)
    seen["delta_m"] = {**results["delta_m"], "experts_views": {"mean": 2.5}}
    assert [column.best for column in columns(seen)] == [column.best for column in columns(results)]
    lines = [line for line in plain(shown(seen)).splitlines() if line.strip().startswith("experts")]
    assert lines[1].split()[:3] == ["experts,", "several", "views"] and "99.00" in lines[1] and "+2.50" in lines[1]
    assert "several views" not in plain(shown(results))
