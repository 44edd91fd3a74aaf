"""Facts that a run records about itself: stages and their seconds, versions, commit, device, peak memory."""

from __future__ import annotations

import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process

from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.progress import console
from symerge_dense.report.results import versions

PACKAGES = ("torch", "torchvision", "timm", "onedl-mmengine", "onedl-mmsegmentation", "albumentations", "numpy")


class Stages:
    """Times the named stages of a run and announces them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, announce: str = "") -> Iterator[None]:
        if announce and is_main_process():
            console.print(f"[bold]{announce}[/bold]")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def commit() -> str:
    """Commit of the checkout this package runs from, with '+changes' if it was edited; 'unknown' outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name() -> str:
    """The accelerator's name, or the processor and its thread count."""
    if get_device().startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def peak_memory_mb() -> float:
    """Peak memory of this process so far in MiB: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def parameters(model: MultiTaskModel) -> dict[str, Any]:
    """Number of weights of a model: ``{'backbone': n, 'heads': {task: n}}``.

    Args:
        model: the network.
    """
    heads = {task: sum(weight.numel() for weight in head.parameters()) for task, head in model.heads.items()}
    return {"backbone": sum(weight.numel() for weight in model.backbone.parameters()), "heads": heads}


def run_facts() -> dict[str, Any]:
    """The facts of the run that do not depend on its results."""
    return {"commit": commit(), "versions": versions(PACKAGES), "device": device_name()}
