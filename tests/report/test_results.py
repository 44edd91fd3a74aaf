"""results.json: what is written is read back, whole or not at all, and what is missing is named."""

import copy
import json
import os

import numpy as np
import pytest
import torch

from symerge_dense.fileio import atomic_write
from symerge_dense.report.agreement import read_record
from symerge_dense.report.results import MERGED_ROWS, ROWS, RUN_KEYS, check_results, write_results


def example():
    """A small complete record."""
    rows = {}
    for number, row in enumerate(ROWS):
        depth = {"abs": {"value": 0.5 + number, "higher_is_better": False}}
        segmentation = {"mIoU": {"value": 40.0 - number, "higher_is_better": True}}
        rows[row] = {"tasks": {"segmentation": segmentation, "depth": depth}}
    delta = {row: {"mean": -1.0, "segmentation": -2.0, "depth": 0.0} for row in MERGED_ROWS}
    run = {"config": {"seed": 1}, "seed": 1, "commit": "abc", "versions": {"torch": "2"}, "device": "cpu"}
    return {**run, **rows, "delta_m": delta, "timings": {"adapt": 1.5}, "peak_memory_mb": 100.0}


def test_what_is_written_is_read_back(tmp_path):
    write_results(tmp_path / "deep" / "results.json", example())
    assert read_record(tmp_path / "deep" / "results.json") == example()


def test_keys_keep_their_order(tmp_path):
    write_results(tmp_path / "results.json", example())
    assert list(read_record(tmp_path / "results.json")["merged"]["tasks"]) == ["segmentation", "depth"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -np.inf, np.float32("nan"), torch.tensor(float("nan"))])
def test_what_is_no_number_becomes_null(tmp_path, number):
    results = example() | {"peak_memory_mb": number}
    results["merged"]["tasks"]["depth"]["abs"]["value"] = number
    write_results(tmp_path / "results.json", results)
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    read = read_record(tmp_path / "results.json")
    assert read["peak_memory_mb"] is None and read["merged"]["tasks"]["depth"]["abs"]["value"] is None


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (torch.tensor([0.5, float("inf")]), [0.5, None]),
        (torch.nn.Parameter(torch.zeros(2)), [0.0, 0.0]),
        ((1, "a", None), [1, "a", None]),
        ({1: True}, {"1": True}),
    ],
)
def test_foreign_types_become_plain(tmp_path, value, plain):
    write_results(tmp_path / "r.json", {"extra": value})
    assert json.loads((tmp_path / "r.json").read_text()) == {"extra": plain}


def test_a_path_becomes_text(tmp_path):
    write_results(tmp_path / "r.json", {"where": tmp_path})
    assert json.loads((tmp_path / "r.json").read_text()) == {"where": str(tmp_path)}


def test_a_value_without_a_json_form_is_named_and_nothing_is_written(tmp_path):
    write_results(tmp_path / "r.json", {"a": 1})
    with pytest.raises(ValueError, match=r"results\.a\[1\]\.b is a set"):
        write_results(tmp_path / "r.json", {"a": [0, {"b": {1, 2}}]})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["picture.png"]


def without(tree, *keys):
    """A copy of a nested dict that lacks the entry under `keys`."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in keys[:-1]:
        parent = parent[key]
    del parent[keys[-1]]
    return tree


@pytest.mark.parametrize(
    "keys",
    [
        *((key,) for key in RUN_KEYS),
        *((row, "tasks") for row in ROWS),
        ("merged", "tasks", "depth", "abs", "value"),
        ("average", "tasks", "segmentation", "mIoU", "higher_is_better"),
        ("delta_m", "initial", "mean"),
    ],
    ids=".".join,
)
def test_a_missing_key_is_named(tmp_path, keys):
    (tmp_path / "r.json").write_text(json.dumps(without(example(), *keys)))
    with pytest.raises(ValueError) as error:
        read_record(tmp_path / "r.json")
    assert ".".join(keys) in str(error.value) and "r.json" in str(error.value)


def test_all_that_is_missing_is_listed_at_once():
    results = without(without(without(example(), "seed"), "initial"), "merged", "tasks", "depth")
    with pytest.raises(ValueError) as error:
        check_results(results)
    for key in ("seed", "initial.tasks", "merged.tasks.depth.abs.value", "merged.tasks.depth.abs.higher_is_better"):
        assert key in str(error.value)


@pytest.mark.parametrize("content", [[], 3, None, {"experts": 1}, {"experts": {"tasks": {"depth": 1}}}])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"r\.json (hold|lack)"):
        read_record(tmp_path / "r.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"r\.json is no JSON file"):
        read_record(tmp_path / "r.json")
