"""Comparing merges with experts when an expert is hopeless."""

import math

from symerge_dense.evaluation.delta_m import delta_by_task
from symerge_dense.tasks.metric import Metric


def test_an_expert_that_scores_nothing_leaves_its_task_undefined_and_the_run_alive(capsys):
    reference = {"segmentation": {"mIoU": Metric(0.0, True)}, "depth": {"abs": Metric(0.5, False)}}
    scores = {"segmentation": {"mIoU": Metric(3.0, True)}, "depth": {"abs": Metric(0.4, False)}}
    change = delta_by_task(scores, reference)
    assert math.isnan(change["segmentation"]) and math.isnan(change["mean"])
    assert abs(change["depth"] - 20) < 1e-9
    assert "segmentation/mIoU is 0" in capsys.readouterr().out
