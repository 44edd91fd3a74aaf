"""compare.md, compare.csv, compare.png and the terminal's tables, from rows that are as odd as rows can be."""

import csv
import io
import json

import cv2
import pytest
from rich.console import Console

from symerge_dense.report.comparison_files import (
    FILES,
    blocks,
    csv_comparison,
    draw_comparison,
    markdown_comparison,
    print_comparison,
    transfers,
    write_comparison,
)
from symerge_dense.report.figures.style import ACCENT, COLOURS, MUTED

BLOCKS = {"reference": "references", "plain": "one encoder", "adapters": "adapters", "masks": "masks"}


def row(method, delta, block="plain", **more):
    value = {"value": 50.0 if delta is None else 50.0 + delta, "higher_is_better": True}
    tasks = {
        "segmentation": {"mIoU": value, "pixAcc": {"value": None, "higher_is_better": True}},
        "depth": {"abs": {"value": 0.25, "std": 0.01, "higher_is_better": False}},
    }
    return {
        "method": method,
        "block": block,
        "data": "none",
        "runs": 1,
        "tasks": tasks,
        "encoder_passes": 1,
        "extra_parameters": 0,
        "seconds": 1.25,
        "peak_memory_mb": 812.4,
        "options": {"scale": 0.3},
        "delta_m": {"mean": {"value": delta}},
        **more,
    }


@pytest.fixture
def record():
    rows = [
        row("average", -20.0),
        row("undefined", None),
        row("symerge", -2.0, note="a | note"),
        {"method": "broken", "block": "plain", "data": "none", "runs": 0, "error": "ValueError: no [scale]"},
        row(
            "dare",
            -9.0,
            delta_m={"mean": {"value": -9.0, "std": 1.5}},
            runs=3,
            tuning_seconds=0.5,
            transferred={"mean": {"value": -4.0}},
        ),
        row("awful", -4000.0),
        row("better", 3.0, "adapters", extra_parameters=2345678),
        row("masked", -1.0, "masks", extra_parameters=1234, encoder_passes=3, data="unlabelled"),
        {**row("experts", 0.0, "reference"), "delta_m": {}, "seconds": None, "peak_memory_mb": None},
    ]
    return {
        "config": {"adaptation": {"batchnorm": "moments"}},
        "tuning": "guessing",
        "seeds": 3,
        "blocks": BLOCKS,
        "adapted_from": "symerge",
        "delta_m_metrics": {"segmentation": "mIoU", "depth": "abs"},
        "rows": rows,
    }


def shown(text):
    """{method: cells} of the first table in Markdown that has the method."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    return {line[0]: line[1:] for line in reversed(lines) if not line[0].startswith("---")}


def test_rows_go_from_the_best_to_the_failed(record):
    order = {title: [entry["method"] for entry in rows] for title, rows in blocks(record)}
    assert order == {
        "references": ["experts"],
        "adapters": ["better"],
        "masks": ["masked"],
        "one encoder": ["symerge", "dare", "average", "awful", "undefined", "broken"],
    }


def test_every_cell_is_said_in_words_or_numbers(record):
    text = markdown_comparison(record)
    cells = shown(text)
    assert cells["dare"][:4] == ["-9.00 ± 1.50", "41.00", "–", "0.2500 ± 0.0100"]
    assert cells["experts"][0] == "–" and cells["undefined"][0] == "–"
    assert cells["broken"] == ["failed", "–", "–", "–", "none", "–", "–", "–", "–", "–"]
    assert cells["better"][4:] == ["none", "2.3 M", "1", "1.2", "–", "812"]
    assert cells["masked"][4:7] == ["unlabelled", "1.2 k", "3"] and cells["dare"][8] == "0.5"
    assert "tuned by guessing" in text and "`moments`" in text and "3 runs" in text
    assert "- symerge: a | note" in text and "- broken failed: ValueError: no [scale]" in text


def test_the_transfer_table_names_whose_layers_they_are(record):
    assert transfers(record) == [
        ["method (Δm % ↑)", "with its own heads", "with SyMerge's layers"],
        ["dare", "-9.00 ± 1.50", "-4.00"],
    ]
    assert "adapted layers on other encoders" in markdown_comparison(record)
    record["adapted_from"] = "other.safetensors"
    assert transfers(record)[0][2] == "with the layers of other.safetensors"
    for entry in record["rows"]:
        entry.pop("transferred", None)
    assert len(transfers(record)) == 1 and "adapted layers" not in markdown_comparison(record)


def test_csv_keeps_every_number_exactly(record):
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(csv_comparison(record)))}
    assert list(lines) == [entry["method"] for entry in record["rows"]]
    dare = lines["dare"]
    assert (dare["delta_m"], dare["delta_m_std"], dare["depth/abs_std"], dare["runs"]) == ("-9.0", "1.5", "0.01", "3")
    assert dare["delta_m_transferred"] == "-4.0" and json.loads(dare["options"]) == {"scale": 0.3}
    assert lines["experts"]["delta_m"] == lines["undefined"]["delta_m"] == lines["average"]["segmentation/pixAcc"] == ""
    assert lines["broken"]["error"] == "ValueError: no [scale]" and lines["broken"]["seconds"] == ""


def test_the_terminal_shows_headline_metrics_and_names_whole(record):
    screen = Console(file=io.StringIO(), width=110)
    print_comparison(record, screen)
    text = screen.file.getvalue()
    assert "mIoU" in text and "pixAcc" not in text and "undefined" in text and "no [scale]" in text
    assert "with SyMerge's layers" in text


def near(picture, colour):
    """Rows of the picture's pixels with this '#rrggbb' colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    return sorted({int(line) for line in (abs(picture.astype(int) - wanted).max(2) < 4).nonzero()[0]})


def test_the_picture_has_a_bar_per_method_the_best_on_top(record, tmp_path):
    draw_comparison(tmp_path, record)
    picture = cv2.imread(str(tmp_path / "compare.png"))
    symerge, plain, adapters = (near(picture, colour) for colour in (ACCENT, COLOURS[0], COLOURS[2]))
    assert symerge and adapters and plain and adapters[0] < symerge[0] < plain[0]
    assert near(picture, MUTED) == [], "the experts have no bar"
    awful = picture[plain[-1] - 200 : plain[-1]]  # cut, so that the others can be told apart
    width = max((abs(awful.astype(int) - [0x97, 0x6F, 0x2A]).max(2) < 4).sum(1))
    own = max((abs(picture.astype(int) - [0x5B, 0x49, 0xD1]).max(2) < 4).sum(1))
    assert 150 / 2 * 0.8 < width / own < 150 / 2 * 1.2


def test_a_table_without_any_delta_m_is_written_too(record, tmp_path):
    record["rows"] = [entry for entry in record["rows"] if entry["method"] in ("experts", "broken")]
    write_comparison(tmp_path, record)
    draw_comparison(tmp_path, record)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert json.loads((tmp_path / "compare.json").read_text())["rows"] == record["rows"]
