"""Panels of a run: black stands for pixels without label, and for no prediction."""

from __future__ import annotations

import numpy as np
import torch
from builders import tiny
from PIL import Image

from symerge_dense.pipeline.run_pictures import Panels


class HalfLabelled(tiny.TinySet):
    """Depth is unknown in the upper half, and everywhere in the later images."""

    def target(self, index, name):
        target = super().target(index, name).copy()
        if name == "depth":
            target[: None if index > 5 else tiny.SIZE[0] // 2] = 0
        return target


def test_predictions_that_no_target_could_have_are_not_painted_as_unlabelled(tmp_path):
    tasks = {"depth": tiny.tasks()["depth"]}
    panels = Panels(HalfLabelled(tasks), tasks, count=2)
    wrong = torch.full((1, *tiny.SIZE), -1.5)
    panels.add_column("expert", {"depth": [wrong, 0 * wrong]})
    pictures = {}
    for number, entry in enumerate(panels.draw(tmp_path)):
        for title, path in entry["tasks"]["depth"].items():
            pictures[number, title] = np.asarray(Image.open(tmp_path / path))
    half = tiny.SIZE[0] // 2
    black = {key: (picture == 0).all(-1) for key, picture in pictures.items()}
    assert black[0, "truth"][:half].all() and not black[0, "truth"][half:].any()
    assert black[1, "truth"].all(), "no label at all"
    assert not black[0, "expert"].any() and not black[1, "expert"].any()
