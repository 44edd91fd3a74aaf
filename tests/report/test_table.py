"""The table: its cells are the inputs, its bold the best merged model, its Markdown a table."""

import copy
import io
import re

import pytest
from rich.console import Console

from symerge_dense.report.results import MERGED_ROWS, ROWS
from symerge_dense.report.table import columns, markdown_table, print_results, results_table, row_title

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


def shown(table, width=300):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    if isinstance(table, dict):
        print_results(table, console)
    else:
        console.print(table)
    return console.file.getvalue()


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def parse_markdown(text):
    """(heading, {row title: cells}) of a Markdown table."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert len({len(line) for line in lines}) == 1, "a line has another number of cells"
    assert set(lines[1]) <= {"---", "---:"}
    return lines[0], {line[0]: line[1:] for line in lines[2:]}


def test_markdown_has_a_column_per_metric_and_delta_m(results):
    heading, rows = parse_markdown(markdown_table(results))
    arrows = {True: "↑", False: "↓"}
    expected = [f"{task} {metric} {arrows[up]}" for task, metrics in METRICS.items() for metric, up in metrics.items()]
    assert heading == ["", *expected, "mean Δm % ↑"]
    assert list(rows) == ["experts", "average", "task arithmetic λ=0.3", "initial merge", "SyMerge"]


def test_markdown_cells_are_the_inputs(results):
    _, rows = parse_markdown(markdown_table(results))
    for row in ROWS:
        values = [entry["value"] for metrics in results[row]["tasks"].values() for entry in metrics.values()]
        cells = [float(cell.strip("*")) for cell in rows[row_title(results, row)][:-1]]
        assert cells == pytest.approx(values, abs=6e-3)
    assert [rows[row_title(results, row)][-1] for row in ROWS] == ["–", "-30.00", "-20.50", "-11.00", "**+1.25**"]


def test_bold_marks_the_best_merged_row_and_never_the_experts(results):
    _, rows = parse_markdown(markdown_table(results))
    assert not any("*" in cell for cell in rows["experts"])
    assert [title for title, cells in rows.items() if "*" in cells[0]] == ["SyMerge"]  # the highest but the experts'
    assert [title for title, cells in rows.items() if "*" in cells[2]] == ["average"]  # the lowest depth error
    assert [title for title, cells in rows.items() if "*" in cells[6]] == ["SyMerge"]  # the highest share of angles


def test_a_tie_in_print_is_a_tie(results):
    results["initial"]["tasks"]["segmentation"]["mIoU"]["value"] = MIOU["merged"] + 1e-6
    _, rows = parse_markdown(markdown_table(results))
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
    _, rows = parse_markdown(markdown_table(results))
    assert rows["SyMerge"][0] == rows["SyMerge"][-1] == "–"
    assert "*" in rows["initial merge"][0]


def test_a_column_without_any_number_is_drawn(results):
    for row in ROWS:
        results[row]["tasks"]["depth"]["abs"]["value"] = None
    _, rows = parse_markdown(markdown_table(results))
    assert {cells[2] for cells in rows.values()} == {"–"}


def test_terminal_and_markdown_say_the_same(results):
    _, rows = parse_markdown(markdown_table(results))
    printed = plain(shown(results_table(results)))
    for title, cells in rows.items():
        line = next(line for line in printed.splitlines() if line.strip().startswith(title))
        assert line.replace(title, "").replace("│", " ").split() == [cell.strip("*") for cell in cells]


def test_the_terminal_shows_the_best_in_bold(results):
    lines = shown(results_table(results, ["segmentation"])).splitlines()
    bold = {re.sub(r"\D*$", "", cell).strip() for line in lines for cell in re.findall(r"\x1b\[1;32m([^\x1b]*)", line)}
    assert {"47.10", "+1.25"} <= bold and "48.22" not in bold


def test_each_task_is_named_once_above_its_metrics(results):
    printed = plain(shown(results_table(results)))
    assert all(printed.count(task) == 1 for task in METRICS)


@pytest.mark.parametrize("width", [50, 72, 90, 400])
def test_a_narrow_terminal_gets_several_tables_and_loses_no_number(results, width):
    printed = plain(shown(results, width))
    assert "…" not in printed and max(map(len, printed.splitlines())) <= width
    cells = [cell.strip("*") for cell in parse_markdown(markdown_table(results))[1]["SyMerge"]]
    lines = [line for line in printed.splitlines() if line.strip().startswith("SyMerge")]
    numbers = [number for line in lines for number in line.replace("│", " ").split()[1:-1]]
    assert numbers == cells[:-1]
    assert (len(lines) == 1) == (width == 400)


def test_text_in_brackets_is_printed_as_it_is(results):
    for row in ROWS:
        results[row]["tasks"]["[red]x"] = results[row]["tasks"].pop("depth")
    assert "[red]x" in plain(shown(results_table(results)))


def test_task_arithmetic_without_a_scale_has_its_plain_name(results):
    del results["task_arithmetic"]["scale"]
    assert row_title(results, "task_arithmetic") == "task arithmetic"


@pytest.mark.parametrize("draw", [results_table, markdown_table, lambda results: print_results(results, Console())])
def test_incomplete_results_are_refused(results, draw):
    broken = copy.deepcopy(results)
    del broken["merged"]
    with pytest.raises(ValueError, match=r"merged\.tasks"):
        draw(broken)
