"""Saved rows: what they were made with, and what becomes of those that were made under other defaults."""

import dataclasses
import json

import pytest

from symerge_dense.adaptation.options import make_options
from symerge_dense.models.views import Views
from symerge_dense.pipeline.comparison.methods import Adaptive, Static
from symerge_dense.pipeline.comparison.references import Experts, ExpertsInViews
from symerge_dense.pipeline.comparison.rows import RowStore

ROW = {"method": "symerge", "runs": 1}


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / "rows")


def test_settings_are_all_options_that_a_row_depends_on():
    options = make_options(num_workers=3)
    own = Adaptive("symerge", {"rounds": 7}).settings(options)
    wanted = {**vars(options), "rounds": 7}
    free = ("num_workers", "save_every", "task_vectors", "activation_checkpointing")
    assert own == {name: value for name, value in wanted.items() if name not in free}
    assert Adaptive("adamerging").settings(options)["objective"] == "entropy", "what defines the method"
    assert Adaptive("surgery").settings(options)["rank"] == 16, "the method's own defaults"
    assert Static("ties").settings(options) == {
        **Static("ties").default.hyperparameters,
        **{name: getattr(options, name) for name in ("batchnorm", "recalibration_images", "batch_size")},
    }
    assert ExpertsInViews(Views()).settings(options) == {"views": Views().spec} and Experts().settings(options) == {}


def test_a_row_of_other_defaults_is_named_and_does_not_count(store, capsys):
    then, now = make_options(class_balance=0.0, clamp=(0.0, 1.0)), make_options(clamp=(0.0, 1.0))
    symerge = Adaptive("symerge")
    store.write("symerge", "asked", symerge.settings(then), ROW)
    assert store.read("symerge", "asked", symerge.settings(then)) == ROW, "tuples come back as lists"
    assert capsys.readouterr().out == ""
    assert store.read("symerge", "asked", symerge.settings(now)) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "symerge: its row in" in said and "was made with class_balance=0.0, now 0.5" in said
    assert "made anew where the method is asked for" in said
    other = dataclasses.replace(then, num_workers=2, save_every=7)
    assert store.read("symerge", "asked", symerge.settings(other)) == ROW, "no result depends on these"


def test_rows_of_earlier_versions_and_of_fewer_options_count(store):
    settings = Adaptive("symerge").settings(make_options())
    store.write("symerge", "asked", settings, ROW)
    assert store.read("symerge", "another", settings) is None
    path = store.folder / "symerge.json"
    found = json.loads(path.read_text())
    del found["settings"]["cutmix"], found["hash"]
    path.write_text(json.dumps(found))
    assert store.read("symerge", "asked", settings) == ROW, "an option that is newer than the row is off by default"
    del found["settings"]
    path.write_text(json.dumps(found))
    assert store.read("symerge", "asked", settings) == ROW
