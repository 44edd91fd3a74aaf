"""The benchmarks of inference and of the demo, and how benchmarks are kept on a page."""

import json

import pytest
import torch
from builders.pipeline_tiny import tool, write_config

from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.profiling import demo, inference
from symerge_dense.pipeline.profiling.table import Row, append_section, contest


def test_ratios_are_those_within_a_round():
    """Of a machine that slows down by half, which medians of seconds alone would blame on a contender."""
    rounds = [{"plain": 1.0, "ours": 2.0}, {"plain": 10.0, "ours": 20.0}, {"plain": 1.5, "ours": 3.0}]
    plain, ours = contest("case", rounds, count={"plain": 4, "ours": 4})
    assert (plain.ratio, ours.ratio) == (1.0, 2.0)
    assert (plain.seconds, ours.seconds, ours.count, ours.slow) == (1.5, 3.0, 4, None)


def test_a_percentile_takes_twenty_rounds():
    rounds = [{"one": float(seconds)} for seconds in range(21)]
    assert contest("case", rounds[1:])[0].slow == pytest.approx(19.05)  # numpy's: between the 19th and the last


def test_inference_is_measured_in_both_programs(tmp_path, capfd):
    config = write_config(tmp_path, more="tasks = dict(depth=dict(type=Depth), normals=dict(type=Normals))\n")
    page = tmp_path / "page.md"
    more = ["--cfg-options", "head.width=4", "--json", "--append", page]
    assert tool("benchmark.py", "inference", config, "--rounds", 2, *more) == 0
    assert "\n    symerge benchmark inference tiny --cfg-options head.width=4 --rounds 2\n" in page.read_text()
    rows = json.loads(capfd.readouterr().out)["suites"]["inference"]
    names = ["experts, PyTorch", "merged, PyTorch", "experts, ONNX", "merged, ONNX"]
    assert [(row["contender"], row["count"]) for row in rows] == [(name, batch) for batch in (1, 8) for name in names]
    for row in rows:
        assert row["seconds"] > 0 and row["slow"] is None  # of two rounds
    assert rows[0]["mebibytes"] == pytest.approx(2 * rows[1]["mebibytes"])  # two experts' backbones, and one


def test_the_suite_has_cases_of_three_backbones(monkeypatch):
    asked = []
    monkeypatch.setattr(inference, "measure_inference", lambda *given: asked.append(given) or iter([]))
    assert not list(inference.inference_rows(torch.device("cpu")))
    names = [config.backbone["name"] for config, *_ in asked]
    assert names == ["resnet18", "vit_small_patch14_dinov2.lvd142m", "resnet50.tv_in1k"]
    assert all(len(rounds) == len(inference.BATCHES) and min(rounds) > 0 for *_, rounds, _ in asked)
    assert [size for _, size, *_ in asked] == [(96, 128), (140, 196), (288, 384)]
    assert not list(inference.inference_rows(torch.device("cpu"), large=False)) and len(asked) == 5


def test_a_number_of_rounds_takes_a_config(capsys):
    assert tool("benchmark.py", "inference", "--rounds", 2) == 2
    assert "name one: symerge benchmark inference CONFIG" in capsys.readouterr().err


def test_the_demo_s_stages_fill_its_time(tmp_path, monkeypatch, capfd):
    config = write_config(tmp_path)
    monkeypatch.setattr(demo, "CONFIG", str(config))
    monkeypatch.setattr(demo, "REDUCED", {})
    rows = demo.demo_rows()
    assert capfd.readouterr().out == "the main job in small\n"
    assert rows[0].contender == "all stages" and rows[0].mebibytes > 50
    assert sum(row.ratio for row in rows[1:]) == pytest.approx(1, abs=0.01)
    assert {"data", "experts", "adaptation"} <= {row.contender for row in rows}
    assert not (tmp_path / "rooms").exists()  # all of it was made anew, elsewhere


def test_what_the_demo_reduces_is_known_to_its_config():
    config = load_config(demo.CONFIG, demo.REDUCED)
    assert config.data["train"]["count"] == demo.FRAMES and config.options.rounds == demo.ROUNDS


def test_a_page_grows_by_sections(tmp_path):
    page = tmp_path / "benchmarks.md"
    titles = {"step": "One step", "demo": "The demo"}
    first = {"step": [Row("case | of pipes", "plain", 0.5, 1.0, count=4, mebibytes=7.0)]}
    append_section(page, "symerge benchmark step", first, titles)
    before = page.read_text()
    append_section(page, "symerge benchmark demo", {"demo": [Row("rooms", "data", 2.0, 0.25)]}, titles)
    text = page.read_text()
    assert text.startswith(before.rstrip()) and text.count("# Benchmarks\n") == 1
    assert "| case \\| of pipes | plain | 0.5 | – | 8 | 1.00 | 7 |" in text
    assert "**The demo**" in text and "    symerge benchmark demo" in text
    assert torch.__version__.split("+")[0] in text
