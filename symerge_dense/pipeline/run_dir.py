"""The folder of one run: where it is, what it holds, and how a run is resumed.

work_dirs/<config>/<date-time>/      run.json (what was asked), results.json, history.jsonl
    labels/  checkpoints/            expert predictions; states to resume from
    merged.safetensors               the merged multi-task model; coefficients.safetensors what was learned
    panels.png coefficients.png curves.png   panels/ has every picture of panels.png alone
work_dirs/experts/<config>/          base-<fingerprint>.safetensors, <task>-<fingerprint>.safetensors
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process

from symerge_dense.fileio import write_text
from symerge_dense.pipeline.config import RunConfig, by_name

ROOT = Path("work_dirs")


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
        choice = [str(runs[-1] if resume else home / time.strftime("%Y%m%d-%H%M%S"))]
    broadcast_object_list(choice)
    return Path(choice[0])


def open_run(folder: Path, config: RunConfig, resume: bool) -> Path:
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
    exists = record.exists() and (resume or any(path != record for path in folder.iterdir()))  # alone: nothing was done
    barrier()
    if exists and not resume:
        raise ValueError(f"{folder} already holds a run; add --resume to go on with it, or choose another --work-dir.")
    if resume and not exists:
        raise ValueError(f"--resume: {folder} holds no run (no run.json); leave out --resume to start one there.")
    if exists:
        before = _asked_before(record)
        now, then = by_name(asked), by_name(before)
        changed = sorted(key for key in now | then if now.get(key) != then.get(key))
        if changed:
            raise ValueError(
                f"--resume: the config is not the one {folder} began with; changed: {', '.join(changed)}. "
                "Use the same config and options, or start a new run."
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


def _asked_before(record: Path) -> dict[str, Any]:
    try:
        before: dict[str, Any] = json.loads(record.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{record} is damaged ({error}); start a new run in another --work-dir.") from error
    return before


def abandon(folder: Path) -> None:
    """Remove the folder of a run that failed before it wrote anything but its config.

    Args:
        folder: of the run.
    """
    if is_main_process() and [path.name for path in folder.iterdir()] == ["run.json"]:
        (folder / "run.json").unlink()
        folder.rmdir()
