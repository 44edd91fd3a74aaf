"""The curve of a run: every row once, none lost by an exception, never half a file."""

import json
import os

import pytest
import torch

from symerge_dense.adaptation.history import FLUSH_EVERY, History, read_history


def fill(history, iterations):
    for iteration in iterations:
        history.add(iteration, {"loss_depth": torch.tensor(iteration / 4, requires_grad=True)})


def row(iteration):
    return {"iteration": iteration, "loss_depth": iteration / 4}


def test_rows_are_written_now_and_then_and_at_a_flush(tmp_path):
    history = History(tmp_path / "history.jsonl")
    fill(history, range(FLUSH_EVERY - 1))
    assert read_history(history.path) == []
    fill(history, [FLUSH_EVERY - 1, FLUSH_EVERY])
    assert len(read_history(history.path)) == FLUSH_EVERY
    history.flush()
    history.flush()
    assert read_history(history.path) == [row(i) for i in range(FLUSH_EVERY + 1)]


def test_without_rows_no_file_appears(tmp_path):
    History(tmp_path / "history.jsonl").flush()
    assert not list(tmp_path.iterdir())


def test_a_cut_keeps_what_came_before_and_drops_a_broken_last_line(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(5)) + '{"iteration": 5, "lo')
    history.cut(4)
    fill(history, [4])
    history.flush()
    assert read_history(history.path) == [row(i) for i in range(5)]
    assert list(tmp_path.iterdir()) == [history.path]


def test_a_cut_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    history = History(tmp_path / "history.jsonl")
    fill(history, range(3))
    history.flush()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        history.cut(1)
    assert read_history(history.path) == [row(0), row(1), row(2)]
