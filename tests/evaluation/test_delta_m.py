"""Delta_m against numbers computed by hand and a published table."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from symerge_dense.evaluation.delta_m import DEFINITIONS, Compared, delta_m, published_metrics
from symerge_dense.evaluation.scores import Scores, scores_from_json, scores_to_json
from symerge_dense.registry import TASKS
from symerge_dense.tasks.metric import Metric
from symerge_dense.tasks.segmentation import Segmentation


def nyuv2(miou: float, accuracy: float, absolute: float, relative: float, angle: float) -> Scores:
    return {
        "segmentation": {"mIoU": Metric(miou, True), "pixel_accuracy": Metric(accuracy, True)},
        "depth": {"abs": Metric(absolute, False), "rel": Metric(relative, False)},
        "normals": {"mean": Metric(angle, False)},
    }


INDIVIDUAL = nyuv2(52.0, 74.2, 41.5, 17.3, 24.2)


PUBLISHED = {  # rows of SyMerge's project page; task mean and metric mean of each, computed by hand from the row
    "weight averaging": ((36.6, 64.0, 55.0, 23.2, 30.0), -26.3, -26.8),
    "task arithmetic": ((31.6, 60.3, 56.7, 24.0, 30.6), -31.0, -32.0),
    "TIES": ((39.9, 62.7, 61.3, 27.3, 36.2), -40.6, -38.8),
    "MagMax": ((24.7, 54.7, 60.3, 23.9, 30.3), -35.4, -37.5),
    "LiNeS": ((36.2, 64.0, 54.2, 22.4, 29.1), -24.1, -24.9),
    "EMR": ((41.5, 67.2, 48.6, 19.4, 26.5), -13.0, -13.7),
    "surgery": ((43.3, 67.4, 55.3, 24.7, 34.7), -31.4, -29.1),
    "probabilistic surgery": ((43.6, 67.6, 52.6, 22.3, 36.7), -30.7, -26.5),
    "SyMerge": ((49.8, 73.1, 45.3, 18.8, 26.2), -6.7, -6.4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_the_published_table(name: str) -> None:
    row, task_mean, metric_mean = PUBLISHED[name]
    scores = nyuv2(*row)
    assert delta_m(scores, INDIVIDUAL, "task_mean")["mean"] == pytest.approx(task_mean, abs=0.051)
    assert delta_m(scores, INDIVIDUAL, "metric_mean")["mean"] == pytest.approx(metric_mean, abs=0.051)
    gains = [
        sign * (m - b) / b * 100
        for m, b, sign in zip(row, (52.0, 74.2, 41.5, 17.3, 24.2), (1, 1, -1, -1, -1), strict=True)
    ]
    assert delta_m(scores, INDIVIDUAL)["mean"] == pytest.approx((gains[0] + gains[2] + gains[4]) / 3)
    every = {"segmentation": sum(gains[:2]) / 2, "depth": sum(gains[2:4]) / 2, "normals": gains[4]}
    for definition in ("task_mean", "metric_mean"):
        assert {task: value for task, value in delta_m(scores, INDIVIDUAL, definition).items() if task != "mean"} == (
            pytest.approx(every)
        )


def test_task_mean_and_metric_mean_weigh_tasks_and_metrics() -> None:
    """One of five normal metrics changes by 50 percent: a fifth of a third, or a ninth."""
    five = {name: Metric(20.0, False) for name in ("mean", "median")}
    five |= {f"within_{limit}": Metric(40.0, True) for limit in ("11.25", "22.5", "30")}
    reference: Scores = {**INDIVIDUAL, "normals": five}
    scores: Scores = {**reference, "normals": {**five, "within_30": Metric(60.0, True)}}
    expected = {"headline": 0, "task_mean": 50 / 15, "metric_mean": 50 / 9}
    assert {name: delta_m(scores, reference, name)["mean"] for name in DEFINITIONS} == pytest.approx(expected)


def test_only_published_metrics_count_and_only_those_of_both() -> None:
    scores: Scores = {"depth": {"abs": Metric(2.0, False), "rel": Metric(0.5, False), "rmse": Metric(9.0, False)}}
    reference: Scores = {"depth": {"abs": Metric(1.0, False), "rel": Metric(0.5, False), "rmse": Metric(1.0, False)}}
    for definition in ("task_mean", "metric_mean"):
        assert delta_m(scores, reference, definition)["mean"] == -50
        for lacking, complete in ((scores, reference), (reference, scores)):
            fewer = {"depth": {name: metric for name, metric in lacking["depth"].items() if name != "rel"}}
            ours, theirs = (fewer, complete) if lacking is scores else (complete, fewer)
            assert delta_m(ours, theirs, definition)["mean"] == -100
        with pytest.raises(ValueError, match="task 'depth': none of its metrics abs, rel is in both"):
            delta_m({"depth": {"rmse": Metric(1.0, False)}}, reference, definition)


def test_published_metrics_are_metrics_of_their_task() -> None:
    for name in TASKS:
        assert set(TASKS[name].delta_metrics or ()) <= set(TASKS[name].metrics)
        assert TASKS[name].delta_metrics is None or TASKS[name].headline in TASKS[name].delta_metrics


def test_headline_by_hand() -> None:
    delta = delta_m(nyuv2(26.0, 0.0, 83.0, 0.0, 12.1), INDIVIDUAL)
    assert list(delta) == ["mean", "segmentation", "depth", "normals"]
    assert delta == pytest.approx({"segmentation": -50, "depth": -100, "normals": 50, "mean": -100 / 3})


def test_the_task_mean_is_the_mean_inside_a_task_first() -> None:
    delta = delta_m(nyuv2(52.0, 37.1, 41.5, 17.3, 24.2), INDIVIDUAL, definition="task_mean")
    assert delta == pytest.approx({"segmentation": -25, "depth": 0, "normals": 0, "mean": -25 / 3})


def test_a_model_against_itself_and_with_fewer_tasks() -> None:
    assert all(set(delta_m(INDIVIDUAL, INDIVIDUAL, definition).values()) == {0.0} for definition in DEFINITIONS)
    assert delta_m({"depth": INDIVIDUAL["depth"]}, INDIVIDUAL) == {"mean": 0.0, "depth": 0.0}


def test_given_tasks_name_the_headline() -> None:
    class Accurate(Segmentation):
        headline = "pixel_accuracy"

    scores = {"segmentation": nyuv2(52.0, 37.1, 0, 0, 0)["segmentation"]}
    assert delta_m(scores, INDIVIDUAL, tasks={"segmentation": Accurate()})["segmentation"] == pytest.approx(-50)


def test_a_task_that_is_not_registered_is_compared_by_what_is_said_of_it() -> None:
    scores: Scores = {"gloss": {"f": Metric(60.0, True), "mae": Metric(0.2, False), "speed": Metric(9.0, True)}}
    reference: Scores = {"gloss": {"f": Metric(50.0, True), "mae": Metric(0.1, False), "speed": Metric(1.0, True)}}
    known = {"gloss": Compared("f", ("f", "mae"))}
    assert delta_m(scores, reference, tasks=known) == pytest.approx({"mean": 20, "gloss": 20})
    assert delta_m(scores, reference, "task_mean", known)["gloss"] == pytest.approx((20 - 100) / 2)
    with pytest.raises(ValueError, match="unknown task 'gloss'"):
        delta_m(scores, reference)


def test_published_metrics_of_a_task_are_its_choice_or_all() -> None:
    assert published_metrics(TASKS["depth"]) == ["abs", "rel"] != list(TASKS["depth"].metrics)
    assert published_metrics(Segmentation()) == list(Segmentation.metrics)
    assert published_metrics(Compared("f", ("f", "mae"))) == ["f", "mae"]


def test_known_tasks_are_compared_without_torch() -> None:
    program = """
import sys
from symerge_dense.evaluation.delta_m import Compared, delta_m
from symerge_dense.tasks.metric import Metric
scores, reference = {"depth": {"abs": Metric(1.5, False)}}, {"depth": {"abs": Metric(1.0, False)}}
print(delta_m(scores, reference, tasks={"depth": Compared("abs", ("abs",))}), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'mean': -50.0, 'depth': -50.0} False"


def test_nan_stays_in_sight() -> None:
    delta = delta_m(nyuv2(math.nan, 74.2, 41.5, 17.3, 24.2), INDIVIDUAL)
    assert math.isnan(delta["mean"]) and math.isnan(delta["segmentation"]) and delta["depth"] == 0
    assert math.isnan(delta_m(INDIVIDUAL, nyuv2(math.nan, 1, 1, 1, 1))["segmentation"])


def test_what_cannot_be_compared_is_named() -> None:
    one = {"depth": INDIVIDUAL["depth"]}
    for scores, reference, words in [
        (INDIVIDUAL, one, "task of the reference 'segmentation'"),
        (INDIVIDUAL, nyuv2(52, 74, 0, 17, 24), "depth/abs is 0"),
        (one, {"depth": {"rel": Metric(1, False)}}, "metric of task 'depth' in the reference 'abs'"),
        ({"depth": {"rel": Metric(1, False)}}, one, "metric of task 'depth' in the scores 'abs'"),
        ({}, INDIVIDUAL, "no task at all"),
    ]:
        with pytest.raises(ValueError, match=words):
            delta_m(scores, reference)
    with pytest.raises(ValueError, match="unknown definition of Delta_m 'best'"):
        delta_m(INDIVIDUAL, INDIVIDUAL, "best")  # type: ignore[arg-type]  # the mistake under test


def test_json_round_trip() -> None:
    scores = {"depth": {"abs": Metric(0.25, False), "delta1": Metric(math.nan, True), "rel": Metric(math.inf, False)}}
    text = json.dumps(scores_to_json(scores), allow_nan=False)
    assert json.loads(text)["depth"]["abs"] == {"value": 0.25, "higher_is_better": False}
    back = scores_from_json(json.loads(text))
    assert back["depth"]["abs"] == Metric(0.25, False)
    assert math.isnan(back["depth"]["delta1"].value) and math.isnan(back["depth"]["rel"].value)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {"depth": 3},
        {"depth": {"abs": 0.2}},
        {"depth": {"abs": {"value": 1}}},
        {"depth": {"abs": {"value": "1", "higher_is_better": True}}},
        {"depth": {"abs": {"value": 1, "higher_is_better": 1}}},
    ],
)
def test_json_of_another_form_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="scores_to_json"):
        scores_from_json(bad)
