"""Memory and seconds of an adaptation to many experts, with task vectors in memory and on disk.

Every contender runs in a process of its own: python -m symerge_dense.pipeline.profiling.many_experts FOLDER PLACE N
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch

from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.options import TaskVectors
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.fileio import nearest_existing
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.checkpoint import save_model, state_hash
from symerge_dense.pipeline.config import RunConfig, load_config
from symerge_dense.pipeline.data import pool
from symerge_dense.pipeline.network import network
from symerge_dense.pipeline.profiling.file_merge import measure_process
from symerge_dense.pipeline.profiling.step import NOISE
from symerge_dense.pipeline.profiling.table import Row, check_positive, contest
from symerge_dense.progress import silent, track
from symerge_dense.registry import TASKS

PLACES: tuple[TaskVectors, ...] = ("memory", "mapped")
CONFIG, IMAGES, ROUNDS, BATCH = "rooms_twenty_symerge", 8, 5, 4
BACKBONE, BASE = "resnet50", "base.safetensors"


def configuration(folder: Path, experts: int) -> RunConfig:
    """A run of as many tasks as there are experts.

    Args:
        folder: of the rooms.
        experts: their number.

    Raises:
        ValueError: there are fewer tasks.
    """
    names = [name for name in TASKS if not TASKS[name].image_level]
    if experts > len(names):
        raise ValueError(f"experts={experts}: rooms have {len(names)} dense tasks; choose at most as many.")
    config = load_config(
        CONFIG,
        {
            "backbone.name": BACKBONE,
            "data.unlabelled.count": IMAGES,
            "data.unlabelled.root": f"{folder}/rooms",
            "adaptation.rounds": ROUNDS,
            "adaptation.batch_size": BATCH,
            "adaptation.save_every": ROUNDS + 1,
            "adaptation.recalibration_images": IMAGES,
        },
    )
    return dataclasses.replace(config, tasks={name: {"type": name} for name in names[:experts]})


def generate(folder: Path, experts: int) -> int:
    """Write a random base, random experts near it, and the rooms that they label.

    Args:
        folder: of the files.
        experts: their number.

    Returns:
        Bytes of all task vectors.

    Raises:
        ValueError: the disk is too small.
    """
    config = configuration(folder, experts)
    torch.manual_seed(0)
    backbone = TimmBackbone(**config.backbone)
    size = sum(value.nbytes for value in backbone.parameters())
    free, needed = shutil.disk_usage(nearest_existing(folder)).free, 2 * size * (experts + 1)  # and the task vectors
    if needed > free:
        raise ValueError(
            f"{folder}: {experts} experts and their task vectors need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are "
            "free; choose fewer --experts, or another --dir."
        )
    origin = {"base_hash": state_hash(backbone.state_dict())}
    for task, spec in track(list(config.tasks.items()), "random experts"):
        expert = network(config, copy.deepcopy(backbone), {task: spec})
        if not (folder / BASE).exists():
            save_model(folder / BASE, expert)
        with torch.no_grad():
            for parameter in expert.backbone.parameters():
                parameter.add_(torch.randn_like(parameter) * parameter.abs().mean() * NOISE)
        save_model(folder / f"{task}.safetensors", expert, origin)
    pool(config)  # renders
    return size * experts


def work(folder: Path, place: TaskVectors, experts: int) -> dict[str, Any]:
    """Adapt once.

    Args:
        folder: of the base, the experts and the rooms.
        place: of the task vectors.
        experts: their number.

    Returns:
        'seconds' from the files to the merged model, and its 'hash'.
    """
    config = configuration(folder, experts)
    files = {task: folder / f"{task}.safetensors" for task in config.tasks}
    options = dataclasses.replace(config.options, task_vectors=place)
    with silent():
        start = time.perf_counter()
        model = SyMergeModel(folder / BASE, files, options)
        student = adapt(model, model.experts, pool(config), folder / place)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "hash": state_hash(student.model.state_dict())}


def many_expert_rows(folder: Path, experts: int, threads: int, rounds: int, memory: float | None = None) -> list[Row]:
    """Memory and seconds with task vectors in memory and on disk.

    Args:
        folder: of the files; empty.
        experts: their number.
        threads: of PyTorch.
        rounds: of both, in turn.
        memory: that an adaptation may have in GB, without that of files; with it, task vectors are on disk only.

    Returns:
        Both, with the peak of their memory, without that of files, which the system drops where it needs the room.

    Raises:
        ValueError: a number is not positive, the disk is too small, a process fails or takes more memory, or the two
            merged models differ.
    """
    numbers = {"experts": experts, "threads": threads, "rounds": rounds, "memory": memory}
    check_positive(numbers)
    size = generate(folder, experts)
    places = PLACES if memory is None else PLACES[1:]
    turns: list[dict[str, float]] = []
    peaks, hashes = dict.fromkeys(places, 0), set[str]()
    for _ in track(range(rounds), "adaptations"):
        seconds = dict[str, float]()
        for place in places:
            output, peak = measure_process([__name__, str(folder), place, str(experts)], threads, memory)
            found = json.loads(output.splitlines()[-1])
            seconds[place], peaks[place] = found["seconds"], max(peak, peaks[place])
            hashes.add(found["hash"])
            shutil.rmtree(folder / place)
        turns.append(seconds)
    if len(hashes) > 1:
        raise ValueError(f"task vectors in {' and '.join(PLACES)} gave different models; report it.")
    case = f"{experts} experts of {BACKBONE}, {ROUNDS} rounds, {size / 1e9:.1f} GB of task vectors"
    case += "" if memory is None else f", at most {memory:g} GB of memory"
    return contest(case, turns, mebibytes={place: peaks[place] / 2**20 for place in places})


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]), cast(TaskVectors, sys.argv[2]), int(sys.argv[3]))))
