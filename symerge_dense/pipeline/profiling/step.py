"""Cost of one adaptation step, against its floor and against the public code's order of work.

Three contenders on the same backbone, heads, images and losses:
  plain      a multi-task fine-tuning step: one forward, one backward, Adam over every weight (the floor);
  symerge    ours: layer-wise merge, one shared forward and backward, Adam over coefficients and adapted layers;
  reference  per task: merge by Python sums, forward, ask the expert, backward, optimizer step.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from symerge_dense.adaptation.acceleration import accelerate
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.engine.freed_memory import keep_freed_memory
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import RunConfig, load_config
from symerge_dense.pipeline.network import network
from symerge_dense.pipeline.profiling.estimate import image_size
from symerge_dense.pipeline.profiling.table import Row, contest, seconds_of
from symerge_dense.progress import say, track

Step = Callable[[], Tensor]  # does one step and returns the loss before it
Size = tuple[int, int]
CONTENDERS = ("plain", "symerge", "reference")
CASES = (
    ("rooms_symerge", 3, 8, 15),
    ("rooms_twenty_symerge", 8, 8, 7),
    ("rooms_twenty_symerge", 20, 8, 3),
    ("nyuv2_symerge", 3, 2, 3),
    ("nyuv2_dinov2s_symerge", 3, 4, 7),
    ("nyuv2_dinov2b_symerge", 3, 1, 3),
)
"""(config, number of its tasks, images in a batch, rounds): few and many tasks, ResNet-18 and 50, ViT-S and ViT-B."""
LARGE = ("nyuv2_symerge",)
"""Configs that take a CPU as long as all others together."""
CLEAR_PEAK = Path("/proc/self/clear_refs")
NOISE = 1e-3  # relative distance of random experts from the base; timings do not depend on it


class Bench:
    """What the contenders share: a random base, random experts near it, one batch of images.

    Args:
        config: has backbone, heads, tasks and options.
        batch_size: number of images.
        size: (H, W) of the images.
        device: where to work.
    """

    def __init__(self, config: RunConfig, batch_size: int, size: Size, device: torch.device) -> None:
        keep_freed_memory()  # as every run does
        torch.manual_seed(0)
        self.model = network(config, TimmBackbone(**config.backbone), config.tasks).to(device)
        self.experts = {task: self._expert(task) for task in config.tasks}
        self.options = config.options
        self.image = torch.rand(batch_size, 3, *size, device=device) * 255
        self.labels = {task: self._ask(task).half() for task in config.tasks}

    def _expert(self, task: str) -> MultiTaskModel:
        expert = copy.deepcopy(self.model)
        expert.keep_tasks([task])
        with torch.no_grad():
            for parameter in expert.backbone.parameters():
                parameter.add_(torch.randn_like(parameter) * parameter.abs().mean() * NOISE)
        return expert.eval()

    @torch.no_grad()
    def _ask(self, task: str) -> Tensor:
        return self.experts[task](self.image, mode="tensor")[task]

    def contender(self, name: str) -> Step:
        """A function that does one step of a contender.

        Args:
            name: of ``CONTENDERS``.
        """
        step: Step = getattr(self, f"_{name}")()
        return step

    def _symerge(self) -> Step:
        model = SyMergeModel(self.model.backbone, self.experts, self.options).to(self.image.device)
        model.teacher.attach(model)
        model.attach(self.experts)
        model.progress = 1.0  # a teacher that waits for the end of a warm-up has its full cost
        accelerate(model.model.backbone, self.options)
        model.train()
        optimizer = torch.optim.Adam(model.parameter_groups())
        batch = {PREFIX + task: label for task, label in self.labels.items()}

        def step() -> Tensor:
            losses = model(self.image, mode="loss", **batch)
            total, _ = model.parse_losses(losses)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            model.after_step()
            model.teacher.after_step(model, 0)
            return torch.stack([losses[f"distance_{task}"] for task in self.labels]).sum()

        return step

    def _plain(self) -> Step:
        model = copy.deepcopy(self.model).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)  # as experts are trained

        def step() -> Tensor:
            outputs = model(self.image, mode="tensor")
            loss = torch.stack([self._loss(task, output, self.labels[task]) for task, output in outputs.items()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    def _reference(self) -> Step:
        model = copy.deepcopy(self.model).train()
        base = dict(model.backbone.named_parameters())
        deltas = [
            {name: (p - base[name]).detach() for name, p in expert.backbone.named_parameters()}
            for expert in self.experts.values()
        ]
        start = torch.full((len(base), len(deltas)), self.options.initial, device=self.image.device)
        coefficients = nn.Parameter(start)
        layers = [
            p
            for task, head in model.named_heads()
            for name in head.layer_modules(self.options.layer)
            for p in head.get_submodule(name).parameters()
        ]
        model.requires_grad_(False)
        for parameter in layers:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam([coefficients, *layers], 1e-2)

        def task_step(task: str) -> Tensor:
            rows = coefficients.clamp(0, 1)
            merged = {
                f"backbone.{name}": base[name] + sum(row[t] * deltas[t][name] for t in range(len(deltas)))
                for row, name in zip(rows, base, strict=True)
            }
            output = functional_call(model, merged, (self.image,), {"mode": "tensor", "only": [task]})[task]
            loss = self._loss(task, output, self._ask(task))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return lambda: torch.stack([task_step(task) for task in model.tasks]).sum()

    def _loss(self, name: str, output: Tensor, expert_output: Tensor) -> Tensor:
        task = self.model.tasks[name]
        target = task.self_label(expert_output.float(), soft=self.options.soft)
        return task.loss(output, target, valid=torch.ones_like(output[:, 0], dtype=torch.bool))


def _peak(arguments: tuple[Any, ...], name: str) -> float:
    bench, device = Bench(*arguments), arguments[-1]
    step = bench.contender(name)
    if name != "reference":
        bench.experts = {}  # only the public code's order of work uses them in every step
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")  # forget the peak of building
    for _ in range(2):
        step()
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_resident()


def _peak_resident() -> float:
    """Peak resident memory in MiB since it was cleared. (A child inherits ru_maxrss from its parent.)"""
    if not CLEAR_PEAK.exists():
        return float("nan")  # only Linux has this count
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def peak_memory(arguments: tuple[Any, ...], name: str) -> float:
    """Peak memory of two steps of a contender, in a process of its own.

    Args:
        arguments: of ``Bench``.
        name: of ``CONTENDERS``.

    Returns:
        MiB of the GPU, else resident (Linux).

    Raises:
        ValueError: the process is killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return round(process.submit(_peak, arguments, name).result(), 1)
        except BrokenProcessPool as error:
            raise ValueError(
                f"the process that measures {name!r} was killed, most likely for want of memory; lower the batch size."
            ) from error


def measure_step(config: RunConfig, batch_size: int, size: Size, rounds: int, device: torch.device) -> list[Row]:
    """Measure the steps of all contenders.

    Args:
        config: has backbone, heads, tasks and options.
        batch_size: number of images.
        size: (H, W) of the images.
        rounds: every contender does one step in each.
        device: where to work.

    Returns:
        The contenders, with ratios to the plain step and the peak memory of two steps, of the GPU where there is one.

    Raises:
        ValueError: a count below 1, images too small for BatchNorm, or a process that is killed.
    """
    for name, value in {"batch_size": batch_size, "rounds": rounds, "height": size[0], "width": size[1]}.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    arguments = (config, batch_size, size, device)
    bench = Bench(*arguments)
    steps = {name: bench.contender(name) for name in CONTENDERS}
    try:
        for step in steps.values():
            step()  # warm-up
    except ValueError as error:  # BatchNorm of one value a channel, at the network's coarsest level
        raise ValueError(f"{batch_size} of {size[0]}x{size[1]}: {error}; choose more or larger images.") from error
    times = [{name: seconds_of(step) for name, step in steps.items()} for _ in track(range(rounds), "steps")]
    del bench, steps
    memory = {name: peak_memory(arguments, name) for name in track(CONTENDERS, "peak memory")}
    case = f"{config.name}: {len(config.tasks)} tasks, {batch_size} of {size[0]}x{size[1]}"
    return contest(case, times, count=dict.fromkeys(CONTENDERS, batch_size), mebibytes=memory)


def step_rows(device: torch.device, large: bool = True) -> Iterator[Row]:
    """The steps of all ``CASES``.

    Args:
        device: where to work.
        large: ``LARGE`` ones, too.
    """
    for name, tasks, batch_size, rounds in CASES:
        if name in LARGE and not large:
            continue
        config = load_config(name)
        first = dict(itertools.islice(config.tasks.items(), tasks))
        say(f"{name}, {len(first)} tasks")
        yield from measure_step(
            dataclasses.replace(config, tasks=first), batch_size, image_size(config), rounds, device
        )
