"""Delta_m against numbers computed by hand and a published table."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from symerge_dense.evaluation.delta import delta_m, scores_from_json, scores_to_json
from symerge_dense.evaluation.scores import Scores
from symerge_dense.tasks.base import Metric
from symerge_dense.tasks.segmentation import Segmentation


def nyuv2(miou: float, accuracy: float, absolute: float, relative: float, angle: float) -> Scores:
    return {"segmentation": {"mIoU": Metric(miou, True), "pixel_accuracy": Metric(accuracy, True)},
            "depth": {"abs": Metric(absolute, False), "rel": Metric(relative, False)},
            "normals": {"mean": Metric(angle, False)}}


INDIVIDUAL = nyuv2(52.0, 74.2, 41.5, 17.3, 24.2)


@pytest.mark.parametrize(("row", "published"), [
    ((49.8, 73.1, 45.3, 18.8, 26.2), -6.7),   # SyMerge
    ((41.5, 67.2, 48.6, 19.4, 26.5), -13.0),  # EMR-Merging
    ((36.6, 64.0, 55.0, 23.2, 30.0), -26.3),  # weight averaging
    ((31.6, 60.3, 56.7, 24.0, 30.6), -31.0),  # task arithmetic
])
def test_rows_of_the_published_table(row: tuple[float, float, float, float, float], published: float) -> None:
    assert delta_m(nyuv2(*row), INDIVIDUAL, metrics="all")["mean"] == pytest.approx(published, abs=0.06)


def test_headline_by_hand() -> None:
    delta = delta_m(nyuv2(26.0, 0.0, 83.0, 0.0, 12.1), INDIVIDUAL)
    assert list(delta) == ["mean", "segmentation", "depth", "normals"]
    assert delta == pytest.approx({"segmentation": -50, "depth": -100, "normals": 50, "mean": -100 / 3})


def test_all_is_the_mean_inside_a_task_first() -> None:
    delta = delta_m(nyuv2(52.0, 37.1, 41.5, 17.3, 24.2), INDIVIDUAL, metrics="all")
    assert delta == pytest.approx({"segmentation": -25, "depth": 0, "normals": 0, "mean": -25 / 3})


def test_a_model_against_itself_and_with_fewer_tasks() -> None:
    assert set(delta_m(INDIVIDUAL, INDIVIDUAL, "all").values()) == {0.0}
    assert delta_m({"depth": INDIVIDUAL["depth"]}, INDIVIDUAL) == {"mean": 0.0, "depth": 0.0}


def test_given_tasks_name_the_headline() -> None:
    class Accurate(Segmentation):
        headline = "pixel_accuracy"

    scores = {"segmentation": nyuv2(52.0, 37.1, 0, 0, 0)["segmentation"]}
    assert delta_m(scores, INDIVIDUAL, tasks={"segmentation": Accurate()})["segmentation"] == pytest.approx(-50)


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
    with pytest.raises(ValueError, match="choice of metrics"):
        delta_m(INDIVIDUAL, INDIVIDUAL, "best")  # type: ignore[arg-type]  # the mistake under test


def test_json_round_trip() -> None:
    scores = {"depth": {"abs": Metric(0.25, False), "delta1": Metric(math.nan, True), "rel": Metric(math.inf, False)}}
    text = json.dumps(scores_to_json(scores), allow_nan=False)
    assert json.loads(text)["depth"]["abs"] == {"value": 0.25, "higher_is_better": False}
    back = scores_from_json(json.loads(text))
    assert back["depth"]["abs"] == Metric(0.25, False)
    assert math.isnan(back["depth"]["delta1"].value) and math.isnan(back["depth"]["rel"].value)


@pytest.mark.parametrize("bad", [
    [], {"depth": 3}, {"depth": {"abs": 0.2}}, {"depth": {"abs": {"value": 1}}},
    {"depth": {"abs": {"value": "1", "higher_is_better": True}}},
    {"depth": {"abs": {"value": 1, "higher_is_better": 1}}},
])
def test_json_of_another_form_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="scores_to_json"):
        scores_from_json(bad)
