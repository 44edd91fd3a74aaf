"""Labels of several views: written once, never taken for those of others, learned from like any label."""

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny

from symerge_dense.adaptation.expert_labels import CachedLabels, OnlineLabels
from symerge_dense.adaptation.label_cache import labels_folder, variance_name, write_labels
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.models.views import Views, average_of_views
from symerge_dense.tasks.depth import Depth

VIEWS = Views(flip=True, scales=(1.0, 1.5))
OPTION = {"flip": True, "scales": (1.0, 1.5)}


@pytest.fixture
def experts():
    return tiny.family()[1]


@pytest.fixture
def pool():
    return Unlabelled(tiny.TinySet({}, split="pool"), limit=3)


def passes(experts):
    """{task: passes so far}, counted from now on."""
    calls = Counter()
    for task, expert in experts.items():
        expert.register_forward_hook(lambda *_, task=task: calls.update([task]))
    return calls


def test_averages_and_their_variance_are_kept_one_row_per_image(tmp_path, experts, pool):
    folder = write_labels(experts, pool, tmp_path, 2, VIEWS)
    image = torch.stack([pool[index]["image"] for index in range(3)])
    for task, expert in experts.items():
        with torch.no_grad():
            parts = [average_of_views(expert, part, VIEWS)[task] for part in image.split(2)]
        average, variance = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        stored = torch.from_numpy(np.load(folder / f"{task}.npy"))
        assert stored.dtype == torch.float16 and torch.equal(stored, average.half())
        assert torch.equal(torch.from_numpy(np.load(folder / f"{variance_name(task)}.npy")), variance[:, None])
        assert float(variance.min()) >= 0 and float(variance.max()) > 0
    sample = CachedLabels(folder, tiny.tasks())(pool[1], 0)
    assert torch.equal(sample[PREFIX + "depth"], torch.from_numpy(np.load(folder / "depth.npy"))[1])


def test_labels_of_other_views_are_kept_apart_and_none_is_asked_twice(tmp_path, experts, pool):
    calls, other = passes(experts), Views()
    places = [write_labels(experts, pool, tmp_path, 3, views) for views in (None, VIEWS, other)]
    assert len(set(places)) == 3 and calls == dict.fromkeys(experts, 1 + 4 + 2)
    assert [write_labels(experts, pool, tmp_path, 3, views) for views in (None, VIEWS, other)] == places
    assert calls == dict.fromkeys(experts, 7)
    plain, averaged = (np.load(place / "depth.npy") for place in places[:2])
    assert not np.array_equal(plain, averaged)


def test_a_record_of_other_views_in_the_folder_is_not_believed(tmp_path, experts, pool):
    write_labels(experts, pool, tmp_path, 3, Views())
    mine, theirs = labels_folder(tmp_path, VIEWS), labels_folder(tmp_path, Views())
    theirs.rename(mine)
    calls = passes(experts)
    write_labels(experts, pool, tmp_path, 3, VIEWS)
    assert calls == dict.fromkeys(experts, 4)
    (mine / "depth.variance.npy").unlink()
    write_labels(experts, pool, tmp_path, 3, VIEWS)
    assert calls == {**dict.fromkeys(experts, 4), "depth": 8}


def test_views_that_cannot_be_averaged_are_refused_before_any_pass(tmp_path, experts, pool):
    class Counts(Depth):
        def average(self, outputs, weights=None):
            raise ValueError("counts are not averaged")

    experts["normals"].tasks["normals"] = Counts()
    calls = passes(experts)
    with pytest.raises(ValueError, match=r"'normals'.*views=None"):
        write_labels(experts, pool, tmp_path, 3, VIEWS)
    assert not calls and not list(tmp_path.iterdir())


def test_labels_of_every_step_are_the_same_averages(experts, pool):
    image = torch.stack([pool[index]["image"] for index in range(2)])
    labels = OnlineLabels(experts, VIEWS)(image)
    for task, expert in experts.items():
        with torch.no_grad():
            assert torch.equal(labels[task], average_of_views(expert, image, VIEWS)[task][0])


def test_the_adaptation_learns_from_the_averages_cached_or_asked_in_every_step(tmp_path):
    cached, online = (
        adapt_tiny(tmp_path / labels, views=OPTION, labels=labels, rounds=2)[0] for labels in ("cached", "online")
    )
    folders = [path.name for path in (tmp_path / "cached" / "labels").iterdir()]
    assert folders == [labels_folder(tmp_path, VIEWS).name] and online.labeller.views == VIEWS
    mine, theirs = cached.merge.coefficients.detach(), online.merge.coefficients.detach()
    assert float((mine - 0.3).abs().max()) > 0.02
    assert float((mine - theirs).abs().median()) < 1e-4  # what float16 does to a label


def test_labels_that_the_disk_cannot_hold_are_refused_before_they_are_written(
    tmp_path, experts, pool, monkeypatch, capsys
):
    size = sum(path.stat().st_size for path in write_labels(experts, pool, tmp_path / "whole", 2).glob("depth.npy"))
    row = size - 128  # without the header
    assert f"labels of depth: {row / 2**20:.1f} MiB in {tmp_path / 'whole'}" in capsys.readouterr().out.replace(
        "\n", ""
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=row - 1))
    with pytest.raises(ValueError, match=r"the labels of depth take .* are free; make room, give fewer images, or"):
        write_labels({"depth": experts["depth"]}, pool, tmp_path / "full", 2)
    assert not list((tmp_path / "full").iterdir())
