"""The folder of one run: where it is, what may be written there, and how a run is taken up again.

work_dirs/<config>/<date-time>/      run.json (what was asked), results.json, history.jsonl
    labels/  checkpoints/            expert predictions; states to resume from
    merged.safetensors               the merged multi-task model; coefficients.safetensors what was learned
    panels.png coefficients.png curves.png
work_dirs/experts/<config>/          base-<fingerprint>.safetensors, <task>-<fingerprint>.safetensors
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process

from symerge_dense.fileio import write_text
from symerge_dense.pipeline.config import RunConfig

ROOT = Path("work_dirs")


def choose(config: RunConfig, work_dir: str | None, resume: bool) -> Path:
    """The folder of this run: the given one, or a new one named by date and time; with ``resume`` the newest one.

    All processes get the same answer. Raises ValueError if there is nothing to resume.
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
    """Create the folder and record what was asked, or check that a resumed run asks for the same.

    Raises ValueError if the folder already holds a run and ``resume`` is False, if it holds none and ``resume`` is
    True, if the config changed in between, or if the folder cannot be written.
    """
    record, asked = folder / "run.json", config.record
    exists = record.exists()
    barrier()
    if exists and not resume:
        raise ValueError(f"{folder} already holds a run; add --resume to go on with it, or choose another --work-dir.")
    if resume and not exists:
        raise ValueError(f"--resume: {folder} holds no run (no run.json); leave out --resume to start one there.")
    if exists:
        before = _asked_before(record)
        changed = sorted(key for key in asked | before if asked.get(key) != before.get(key))
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
    """Remove a folder that holds nothing but what was asked: the run failed before it made anything."""
    if is_main_process() and [path.name for path in folder.iterdir()] == ["run.json"]:
        (folder / "run.json").unlink()
        folder.rmdir()
