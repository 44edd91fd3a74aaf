"""The folder of one run: where it is, what it holds, and how a run is resumed.

work_dirs/<config>/<date-time>/      run.json (what was asked), results.json, history.jsonl
    labels/  checkpoints/            expert predictions; states to resume from
    merged.safetensors               the merged multi-task model; coefficients.safetensors what was learned
    panels.png coefficients.png curves.png   panels/ has every picture of panels.png alone
    .run.lock                        who works here, while somebody does
work_dirs/experts/<config>/          base-<fingerprint>.safetensors, <task>-<fingerprint>.safetensors
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from mmengine.dist import barrier, broadcast_object_list, is_main_process

from symerge_dense.adaptation.options import NO_NUMBER
from symerge_dense.fileio import parsed_json, write_text
from symerge_dense.pipeline.config import RunConfig, by_name
from symerge_dense.pipeline.run_lock import LOCK, in_use, working_in
from symerge_dense.report.differences import leaves

ROOT = Path("work_dirs")
RECIPES = ("experts.recipe.", "experts.recipes.", "base.train.recipe.")
DATED = re.compile(r"(\d{8}-\d{6})(?:-(\d\d))?")  # names of runs
LONGEST = 60  # letters of a value that a message shows
FREE = (
    *(f"adaptation.{name}" for name in sorted(NO_NUMBER)),
    "baselines.methods",
    "baselines.variants",
    "evaluation.num_workers",
    "evaluation.panels",
    "runner.log_level",
    "runner.log_processor",
    "runner.val_interval",
    "runner.visualizer",
)
"""Values of a config that no result depends on: a resumed run may have others. So may recipes, in ``num_workers``."""


def choose(config: RunConfig, work_dir: str | None, resume: bool) -> Path:
    """The folder of this run, the same in all processes.

    Args:
        config: its name is part of the path.
        work_dir: the folder; None takes a new one named by date and time, or with ``resume`` the newest.
        resume: whether a run is resumed.

    Raises:
        ValueError: there is no run to resume.
    """
    choice: list[Any] = [work_dir]
    if work_dir is None and is_main_process():
        home = ROOT / config.name
        runs = sorted(path.parent for path in home.glob("*/run.json"))
        if resume and not runs:
            raise ValueError(f"--resume: no run under {home}; start one without --resume, or name it by --work-dir.")
        choice = [str(runs[-1] if resume else home / _new_name([run.name for run in runs]))]
    broadcast_object_list(choice)
    return Path(choice[0])


def _new_name(runs: Sequence[str]) -> str:
    """Date and time. After a clock was set back it follows the newest run, which --resume finds by its name."""
    now, dated = time.strftime("%Y%m%d-%H%M%S"), [found for run in runs if (found := DATED.fullmatch(run))]
    if not dated or dated[-1][0] < now:
        return now
    return f"{dated[-1][1]}-{int(dated[-1][2] or 1) + 1:02}"


class Recorded(Protocol):
    """A config of any kind, as plain values."""

    @property
    def record(self) -> dict[str, Any]:
        """All of it."""


def open_run(folder: Path, config: Recorded, resume: bool) -> Path:
    """Create the folder and record the config, or check that a resumed run has the same one.

    Args:
        folder: of the run.
        config: of the run.
        resume: whether a run is resumed.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds a run without ``resume`` or none with it, the config has changed, or the folder
            cannot be written.
    """
    record, asked = folder / "run.json", config.record
    exists = record.exists() and (resume or _names(folder) != {record.name})  # alone: nothing was done
    barrier()
    if exists and not resume:
        if owner := working_in(folder):
            raise in_use(folder, owner)
        raise ValueError(f"{folder} already holds a run; add --resume to go on with it, or choose another --work-dir.")
    if resume and not exists:
        raise ValueError(f"--resume: {folder} holds no run (no run.json); leave out --resume to start one there.")
    if exists:
        before = _asked_before(record)
        changed = _changed(by_name(before), by_name(asked))
        if changed:
            raise ValueError(
                f"--resume: the config is not the one {folder} began with; changed: {', '.join(changed)}. "
                "Use the same config and options, or start a new run. (What no result depends on may change: "
                f"num_workers, {', '.join(name for name in FREE if not name.endswith('num_workers'))}.)"
            )
    elif is_main_process():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(record, json.dumps(asked, indent=1))
        except OSError as error:
            raise ValueError(
                f"work dir {folder} cannot be written ({error.strerror}); choose another --work-dir."
            ) from error
    barrier()
    return folder


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Dotted names of what differs and may change a result, with both values where they are short."""
    then, asked = dict(leaves(before)), dict(leaves(now))
    found = []
    for name in sorted(then.keys() | asked.keys()):
        workers = name.endswith(".num_workers") and name.startswith(RECIPES)
        free = workers or any(name == key or name.startswith(f"{key}.") for key in FREE)
        if then.get(name) == asked.get(name) or free:
            continue
        values = [str(values.get(name, "not given")) for values in (then, asked)]
        told = f" ({values[0]}, now {values[1]})" if max(map(len, values)) <= LONGEST else ""
        found.append(f"{name}{told}")
    return found


def began_with(folder: Path, config: RunConfig) -> dict[str, Any]:
    """The record of the config that a run began with, where it is resumed with another in what no result depends on.

    Args:
        folder: of the run.
        config: of the run as it is now.
    """
    record = folder / "run.json"
    return _asked_before(record) if record.exists() else config.record


def _asked_before(record: Path) -> dict[str, Any]:
    try:
        before = parsed_json(record.read_bytes())
        if not isinstance(before, dict):
            raise ValueError("no config")
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}); start a new run in another --work-dir.") from error
    return dict(before)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK}


@contextmanager
def abandoned(folder: Path, keep: bool) -> Iterator[None]:
    """Where the block fails before it wrote anything but the run's config, remove the folder of the run.

    Args:
        folder: of the run.
        keep: leave it in any case: it was there before.
    """
    try:
        yield
    except Exception:
        if not keep and is_main_process() and _names(folder) == {"run.json"}:
            (folder / "run.json").unlink()
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
        raise
