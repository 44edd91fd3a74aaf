"""What can be wrong with a run's images, sizes and disk, found before anything is trained."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from symerge_dense.adaptation.label_cache import labels_folder
from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.adaptation.teacher import build_teacher
from symerge_dense.datasets.base import DenseDataset, to_tensor
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.fileio import nearest_existing
from symerge_dense.models.task_specs import build_task
from symerge_dense.models.views import Views
from symerge_dense.pipeline import data
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.expert_facts import ExpertFacts, check_given_experts
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.network import check_network, check_size, check_teacher, label_sizes
from symerge_dense.preparation.check.data_sets import no_label
from symerge_dense.progress import say, track
from symerge_dense.tasks.base import DenseTask

HELD_OUT_SHARE, HELD_OUT = 10, (2, 100)  # of the pool, one image in ten, but at least two and at most a hundred
HALF, SINGLE = 2, 4  # bytes of a label's number, and of a variance


def check_run(
    config: RunConfig,
    store: ExpertStore,
    folder: Path,
    measured: Callable[[], Mapping[str, DenseDataset]] | None,
    images: Unlabelled | None = None,
) -> tuple[Unlabelled, tuple[int, int]]:
    """Everything that can be wrong with experts, images, sizes and disk, found before anything is trained.

    Labelled sets are read when something has to be trained: else they are read soon anyway.

    Args:
        config: of the run.
        store: of its experts; it is told to check the labelled sets before it trains.
        folder: of the run.
        measured: gives {name in the config: labelled set} of all that is measured on; None for a run without labels.
        images: the unlabelled images, in place of those that the config names.

    Returns:
        The unlabelled images, all of them, and their (H, W).

    Raises:
        ValueError: something is wrong.
    """
    facts = check_given_experts(config)
    check_network(config)
    pool = data.pool(config) if images is None else images
    if pool.remark:
        say(pool.remark, once=True)
    sets = {} if measured is None else dict(measured())
    for title, labelled in sets.items():
        check_size(config, labelled[0]["image"].shape[-2:], title)
    if measured is None:
        held_out_count(config, len(pool))
    if store.may_train:
        sets["data.train"] = data.dataset(config, "train", config.tasks)
    workers = config.options.num_workers
    with explained("data.unlabelled"):
        pool.check_tasks(list(config.tasks))
        build_teacher(config.options.teacher).check_pool(pool, list(config.tasks))
        pool.check_images()
        size = (int(pool.image(0).shape[-2]), int(pool.image(0).shape[-1]))
    check_size(config, size, "data.unlabelled")
    check_teacher(config, size)
    check_strong_views(config, size)
    check_disk(config, folder / "labels", len(pool), size, facts)
    store.load_given()
    store.before_training = functools.partial(check_labelled, sets, workers)
    return pool, size


def check_strong_views(config: RunConfig, size: tuple[int, int]) -> None:
    """Try the student's strong views, where there are some.

    Args:
        config: of the run.
        size: (H, W) of the images.

    Raises:
        ValueError: a transform cannot be applied, or a task has no rule for what it does.
    """
    if config.options.strong is not None:
        with explained("adaptation"):
            rules = {name: build_task(name, spec) for name, spec in config.tasks.items()}
            StrongViews(config.options.strong, size).check(rules)


def held_out_count(config: RunConfig, images: int) -> int:
    """How many images of the pool a run without labels keeps to measure agreement on.

    Args:
        config: may say so, ``evaluation.held_out``; else one in ten, at least 2 and at most 100.
        images: in the pool.

    Raises:
        ValueError: too few are left for one batch of the adaptation.
    """
    batch = config.options.batch_size
    count = int(config.evaluation.get("held_out") or min(max(images // HELD_OUT_SHARE, HELD_OUT[0]), HELD_OUT[1]))
    left = images - count
    if left < batch:
        remedy = f" or take adaptation.batch_size={left}" if left > 1 else ""
        raise ValueError(
            f"data.unlabelled has {images} image{'s' if images != 1 else ''}: {count} measure the agreement "
            f"(evaluation.held_out), and {max(left, 0)} are fewer than one batch of {batch}. Give {batch + count} "
            f"images or more{remedy or ', or smaller values of evaluation.held_out and adaptation.batch_size'}."
        )
    return count


def check_labelled(sets: Mapping[str, DenseDataset], workers: int = 0) -> None:
    """Read every image of some data sets with its targets once.

    Args:
        sets: {name in the config: data set}; its images as in the first pass.
        workers: processes that read.

    Raises:
        ValueError: a file is missing, broken or does not fit, or a task has not one valid pixel.
    """
    for title, labelled in sets.items():
        order = range(len(labelled))
        loader: DataLoader[Any] = DataLoader(labelled, batch_size=None, num_workers=workers, sampler=order)
        labelled.check_images()
        unseen = {name: rule for name, rule in labelled.tasks.items() if isinstance(rule, DenseTask)}
        for sample in track(loader, f"reading {title}"):
            unseen = {name: rule for name, rule in unseen.items() if not rule.valid(sample[name][None]).any()}
        for name, rule in unseen.items():
            _check_any_label(title, labelled, name, rule)


def _check_any_label(title: str, labelled: DenseDataset, name: str, rule: DenseTask) -> None:
    """Look at the whole labels of a task that had none in the samples, which augmentation may have cropped."""
    for index in range(len(labelled)) if labelled.augment is not None else ():
        if rule.valid(to_tensor(labelled.resized_target(index, name))[None]).any():
            return
    raise ValueError(f"{title}: {no_label(name, len(labelled), labelled.target_name(0, name))}.")


def check_disk(
    config: RunConfig, labels: Path, images: int, size: tuple[int, int], facts: Mapping[str, ExpertFacts]
) -> None:
    """Check that the experts' cached labels fit on the disk.

    Args:
        config: of the run.
        labels: folder of the labels.
        images: that the experts label.
        size: (H, W) of the images.
        facts: of given experts, whose own heads count.

    Raises:
        ValueError: they do not; the message has the sizes.
    """
    if config.options.labels != "cached":
        return
    views, sizes = Views.of(config.options.views), label_sizes(config, size, facts)
    needed = HALF * images * sum(sizes.values())
    if views is not None:
        pixels = (count // build_task(task, config.tasks[task]).channels for task, count in sizes.items())
        needed += SINGLE * images * sum(pixels)
    kept = sum(path.stat().st_size for path in labels_folder(labels, views).glob("*.npy"))
    free = shutil.disk_usage(nearest_existing(labels)).free
    if needed - kept > free:
        raise ValueError(
            f"the experts' labels of {images} images take {needed / 2**30:.1f} GiB in {labels}, where "
            f"{free / 2**30:.1f} GiB are free; choose another --work-dir, take fewer images (data.unlabelled.limit) or "
            "smaller ones (size), or ask the experts in every step: adaptation.labels='online', "
            "adaptation.augment=None."
        )
