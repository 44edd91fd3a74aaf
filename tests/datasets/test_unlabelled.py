"""Samplers, the unlabelled view, folders of images, and what every data set does with keys and tasks."""

import builtins
import itertools
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.image_folder import ImageFolder
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.datasets.samplers import EpochSampler, PoolSampler
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.registry import TASKS

SIZE = (6, 8)
TASKS_OF_ROOMS = ("segmentation", "edges", "depth", "normals", "albedo", "shading")


@pytest.fixture(scope="module")
def rules():
    return {name: TASKS[name]() for name in TASKS_OF_ROOMS}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("rooms")


def rooms(root, **arguments):
    return Rooms(**{"split": "val", "root": root, "count": 5, "size": SIZE, **arguments})


# -- keys --------------------------------------------------------------------------------------------------------------
def test_key_is_draw_times_length_plus_index(root, rules):
    dataset = rooms(root, tasks=rules, augment={"zoom": (1.0, 1.5), "color": 0.3}, seed=4)
    plain = rooms(root, tasks=rules)
    for draw, index in ((0, 3), (2, 0), (7, 4)):
        sample = dataset[draw * 5 + index]
        arrays = {"image": plain.image(index), **{name: plain.target(index, name) for name in rules}}
        expected = dataset.augment(arrays, dataset.tasks, np.random.default_rng((4, draw, index)))
        assert sample["index"] == index
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), expected["image"])
        np.testing.assert_array_equal(sample["segmentation"].numpy(), expected["segmentation"])
        np.testing.assert_array_equal(sample["depth"][0].numpy(), expected["depth"])


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_do_not_depend_on_worker_processes(root, rules, workers):
    dataset = rooms(root, tasks=rules, augment=Augment(zoom=(1.0, 1.5)), seed=1)
    sampler = EpochSampler(dataset, seed=3)
    sampler.set_epoch(2)
    batches = list(DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=default_collate))
    alone = [dataset[key] for key in sampler]
    for name in ("image", *rules):
        together = torch.cat([batch[name] for batch in batches])
        assert torch.equal(together, torch.stack([sample[name] for sample in alone]))


def test_iteration_ends_after_every_image_once(root):
    assert [sample["index"] for sample in rooms(root)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Unlabelled])
def test_negative_keys_are_refused(root, wrap):
    with pytest.raises(IndexError, match="keys are draw"):
        wrap(rooms(root))[-1]


def test_batches_have_the_shapes_of_the_contract(root, rules):
    batch = default_collate([rooms(root, tasks=rules)[key] for key in (0, 1)])
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    one, three = (2, 1, *SIZE), (2, 3, *SIZE)
    assert shapes == {
        "image": three,
        "index": (2,),
        "segmentation": (2, *SIZE),
        "edges": one,
        "depth": one,
        "normals": three,
        "albedo": three,
        "shading": one,
    }
    for name, rule in rules.items():
        assert tuple(rule.valid(batch[name]).shape) == (2, *SIZE)


# -- tasks -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [{"type": "depth"}, "class"])
def test_tasks_may_be_specs(root, rules, spec):
    dataset = rooms(root, tasks={"depth": {"type": type(rules["depth"])} if spec == "class" else spec})
    assert isinstance(dataset.tasks["depth"], type(rules["depth"]))
    assert set(dataset[0]) == {"image", "index", "depth"}


def test_task_under_a_wrong_key_is_refused(root, rules):
    with pytest.raises(ValueError, match="use 'normals' as its key"):
        rooms(root, tasks={"depth": rules["normals"]})


def test_metainfo_names_the_classes(root):
    assert rooms(root).metainfo["classes"][:2] == ("bed", "books")


# -- samplers ----------------------------------------------------------------------------------------------------------
def test_epoch_sampler_covers_every_image_once_per_epoch_and_resumes():
    sampler = EpochSampler(range(7), seed=5)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert sorted(key % 7 for key in keys) == list(range(7)) and {key // 7 for key in keys} == {epoch}
        epochs.append([key % 7 for key in keys])
    assert epochs[0] != epochs[1] and len(sampler) == 7
    resumed = EpochSampler(range(7), seed=5)
    resumed.set_epoch(2)
    assert [key % 7 for key in resumed] == epochs[2]
    assert list(EpochSampler(range(7), seed=6)) != list(EpochSampler(range(7), seed=5))
    assert list(EpochSampler(range(7), shuffle=False)) == list(range(7))


def test_pool_sampler_never_ends_and_resumes_anywhere():
    stream = list(itertools.islice(PoolSampler(range(5), seed=2), 23))
    assert all(sorted(stream[k : k + 5]) == list(range(k, k + 5)) for k in range(0, 20, 5)), (
        "draw k holds keys 5k..5k+4"
    )
    resumed = PoolSampler(range(5), seed=2)
    resumed.start = 13
    assert list(itertools.islice(resumed, 10)) == stream[13:]
    assert stream[:5] != [key - 5 for key in stream[5:10]]
    assert list(itertools.islice(PoolSampler(range(5), shuffle=False), 12)) == list(range(12))


@pytest.mark.parametrize("sampler", [EpochSampler, PoolSampler])
def test_empty_data_set_is_refused(sampler):
    with pytest.raises(ValueError, match="empty"):
        sampler([])


def rank_keys(rank, meeting, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    epoch = EpochSampler(range(7), seed=1)
    answers.put((rank, list(epoch), len(epoch), list(itertools.islice(PoolSampler(range(7), seed=1), 10))))
    torch.distributed.destroy_process_group()


def test_two_ranks_share_the_keys(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=rank_keys, args=(rank, tmp_path / "meet", answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    (_, first, length, left), (_, second, _, right) = sorted(answers.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join()
    alone = list(EpochSampler(range(7), seed=1))
    assert length == len(first) == len(second) == 4
    assert [key for pair in zip(first, second, strict=True) for key in pair] == [*alone, alone[0]]
    stream = list(itertools.islice(PoolSampler(range(7), seed=1), 20))
    assert (left, right) == (stream[0::2], stream[1::2])


# -- unlabelled --------------------------------------------------------------------------------------------------------
def nyuv2(folder):
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.random((*SIZE, 3)),
        "label": np.zeros(SIZE),
        "depth": np.ones((*SIZE, 1)),
        "normal": np.ones((*SIZE, 3)) / 3**0.5,
    }
    for part, array in arrays.items():
        (folder / "train" / part).mkdir(parents=True)
        for index in range(3):
            np.save(folder / "train" / part / f"{index}.npy", array)
    return folder


def test_unlabelled_never_opens_a_target(tmp_path, root, rules, monkeypatch):
    """Every file opened by reading all images through the view, recorded at ``open`` and ``np.load``."""
    tasks = {name: rules[name] for name in ("segmentation", "depth", "normals")}
    views = [Unlabelled(NYUv2(nyuv2(tmp_path), "train", tasks)), Unlabelled(rooms(root, tasks=rules))]
    opened, real_open, real_load = [], builtins.open, np.load
    monkeypatch.setattr(builtins, "open", lambda file, *a, **k: (opened.append(str(file)), real_open(file, *a, **k))[1])
    monkeypatch.setattr(np, "load", lambda file, *a, **k: (opened.append(str(file)), real_load(file, *a, **k))[1])
    for view in views:
        assert all(set(view[index]) == {"image", "index"} for index in range(len(view)))
    assert len(opened) >= 3
    assert {Path(path).parent.name for path in opened if str(tmp_path) in path} == {"image"}
    assert {Path(path).stem for path in opened if str(root) in path} <= {"image"}


def test_unlabelled_works_after_the_targets_are_deleted(tmp_path, rules):
    source = NYUv2(nyuv2(tmp_path), "train", {name: rules[name] for name in ("segmentation", "depth", "normals")})
    for part in ("label", "depth", "normal"):
        for path in (tmp_path / "train" / part).iterdir():
            os.remove(path)
    view = Unlabelled(source)
    assert [view[index]["index"] for index in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="missing"):
        source[0]


def test_unlabelled_is_the_image_of_its_source(root, rules):
    source = rooms(root, tasks=rules, augment=Augment(flip=1.0))
    view = Unlabelled(source, limit=3)
    assert len(view) == 3 and view._source is source
    for key in (1, 4, 7):
        assert view[key]["index"] == 1
        np.testing.assert_array_equal(view[key]["image"].permute(1, 2, 0).numpy(), source.image(1))


def test_unlabelled_builds_its_source_and_bounds_its_limit(root):
    tasks = {"depth": {"type": "depth"}}
    spec = {"type": Rooms, "split": "val", "root": root, "count": 5, "size": SIZE, "tasks": tasks}
    assert isinstance(Unlabelled(spec)._source, DenseDataset)
    assert len(Unlabelled(spec, limit=100)) == 5
    with pytest.raises(ValueError, match="at least 1"):
        Unlabelled(spec, limit=0)


# -- folder ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    for name, color in (("b.png", (255, 0, 0)), ("a.jpg", (0, 128, 0)), ("c.PNG", (0, 0, 200))):
        cv2.imwrite(str(tmp_path / name), np.full((9, 12, 3), color[::-1], np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_folder_is_sorted_and_rgb(folder):
    dataset = ImageFolder(folder)
    assert len(dataset) == 3
    np.testing.assert_allclose(dataset.image(0)[0, 0], (0, 128, 0), atol=3)
    np.testing.assert_array_equal(dataset.image(1)[0, 0], (255, 0, 0))
    np.testing.assert_array_equal(dataset.image(2)[0, 0], (0, 0, 200))
    sample = ImageFolder(folder, size=(4, 6))[1]
    assert tuple(sample["image"].shape) == (3, 4, 6) and set(sample) == {"image", "index"}
    assert len(Unlabelled(dataset)) == 3


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n broken", b"text"])
def test_unreadable_image_is_named(folder, damage):
    (folder / "b.png").write_bytes(damage)
    with pytest.raises(ValueError, match=r"b\.png: not a readable image"):
        ImageFolder(folder)[1]


def test_folder_errors(folder, tmp_path_factory, rules):
    with pytest.raises(ValueError, match="no such folder"):
        ImageFolder(folder / "missing")
    with pytest.raises(ValueError, match="no image in this folder"):
        ImageFolder(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ValueError, match="ImageFolder: unknown target 'depth'"):
        ImageFolder(folder, tasks={"depth": rules["depth"]})
    with pytest.raises(ValueError, match="holds images only"):
        ImageFolder(folder).target(0, "depth")
