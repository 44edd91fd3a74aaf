"""Checkpoints of an unfinished run: plain tensors and numbers, written atomically, read without running code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook

from symerge_dense.fileio import atomic_write
from symerge_dense.models.weight_files import CorruptFileError, read_plain
from symerge_dense.registry import HOOKS

NAME = re.compile(r"(?:epoch|iter)_(\d+)\.pth")
NO_HISTORY: dict[str, Any] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Saves the run at regular intervals, and keeps the newest two files.

    MMEngine's own checkpoints hold pickled histories and are not written atomically, and its loader falls back to
    unrestricted unpickling. These hold only what resuming needs, and nothing that could run code.

    Args:
        folder: where the files go.
        interval: epochs or iterations between two checkpoints.
        by_epoch: whether ``interval`` counts epochs or iterations.
        fingerprint: of everything that a resumed run must share with the interrupted one.
    """

    priority = "VERY_LOW"
    keep = 2

    def __init__(self, folder: str | Path, interval: int = 1, by_epoch: bool = True, fingerprint: str = "") -> None:
        self.folder, self.interval, self.by_epoch, self.fingerprint = Path(folder), interval, by_epoch, fingerprint

    def after_train_epoch(self, runner: Any) -> None:
        """Save, if the interval counts epochs."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._save(runner, f"epoch_{runner.epoch + 1}.pth")

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save, if the interval counts iterations."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._save(runner, f"iter_{runner.iter + 1}.pth")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not plain: log histories and the data set's description."""
        checkpoint["message_hub"] = dict(NO_HISTORY)
        checkpoint["meta"].pop("dataset_meta", None)
        checkpoint["meta"]["fingerprint"] = self.fingerprint

    @master_only
    def _save(self, runner: Any, name: str) -> None:
        with atomic_write(self.folder / name) as temporary:
            runner.save_checkpoint(str(self.folder), temporary.name, by_epoch=self.by_epoch)
        for path in checkpoints(self.folder)[self.keep :]:
            path.unlink()


def checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoint files of a run, newest first.

    Args:
        folder: of the checkpoints.
    """
    found = [(int(match[1]), path) for path in Path(folder).glob("*.pth") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_checkpoint(folder: str | Path, fingerprint: str = "") -> Path | None:
    """The newest checkpoint that can be read; a damaged one falls back to the one before. None where there is none.

    Args:
        folder: of the checkpoints.
        fingerprint: that the checkpoint must have.

    Raises:
        UnsafeFileError: a file holds pickled objects.
        ValueError: a file is no checkpoint of this package, or belongs to a run with other settings.
    """
    for path in checkpoints(folder):
        try:
            content = read_plain(path)
        except CorruptFileError as error:
            if is_main_process():
                print(f"{error} Going on from the one before.")
            continue
        meta = content.get("meta") if isinstance(content, dict) else None
        if not isinstance(meta, dict) or not isinstance(meta.get("iter"), int):
            raise ValueError(f"{path} is no checkpoint of a run of this package; move it out of the folder.")
        if meta.get("fingerprint", "") != fingerprint:
            raise ValueError(
                f"{path} belongs to an unfinished run with other settings (recipe, seed, data, model or "
                "base weights); start in another folder, or discard it (resume=False in Python)."
            )
        return path
    return None


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where a run keeps its checkpoints, how often, and whether it goes on from one.

    Args:
        folder: of the files.
        interval: epochs or iterations between two checkpoints; 0 saves none.
        by_epoch: whether ``interval`` counts epochs or iterations.
        fingerprint: of everything that a resumed run must share with the interrupted one.
        resume: go on from the newest sound checkpoint; without it the checkpoints are removed.
    """

    folder: Path
    interval: int = 0
    by_epoch: bool = True
    fingerprint: str = ""
    resume: bool = False

    def begin(self) -> Path | None:
        """The checkpoint that the run goes on from, or None; then files of an earlier run are removed.

        Raises:
            ValueError: a checkpoint must not be resumed from (see ``newest_checkpoint``).
        """
        if self.resume:
            return newest_checkpoint(self.folder, self.fingerprint)
        if is_main_process():
            for path in checkpoints(self.folder):
                path.unlink(missing_ok=True)
        return None

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """The hook that saves, as a config dict; none where nothing is saved."""
        values = {"folder": str(self.folder), "interval": self.interval, "by_epoch": self.by_epoch}
        hook = {"type": "SafeCheckpointHook", **values, "fingerprint": self.fingerprint}
        return [hook] if self.interval else []
