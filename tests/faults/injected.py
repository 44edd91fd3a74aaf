"""An error of the disk at one call of a job: a new file, a write, an append, a sync, a close or a rename that fails.

Full disks in memory (``faults.full_disk``) fail where a file takes bytes. Others tell it later or elsewhere: delayed
allocation at the sync, network disks and quotas at the close, a folder that needs another block at the rename, a disk
without inodes at a new file. Here Python's own calls raise that error for paths below one folder; the rest of the
program is as it is, and what C libraries write by themselves is not reached.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import runpy
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from builders.pipeline_tiny import ENV, ROOT
from builders.prepared_python import Python

from faults.jobs import Job, contents, files, half_written, unfinished

CODES = {"create": (errno.ENOSPC,), "rename": (errno.ENOSPC, errno.EDQUOT), "close": (errno.EDQUOT, errno.EIO)}
CODES |= {"write": (errno.ENOSPC,), "append": (errno.ENOSPC,), "sync": (errno.ENOSPC, errno.EIO)}
PROGRAM = "import sys; from faults.injected import run_with; del sys.argv[0]; run_with(*sys.argv)"
RAW = {"r": "rb", "w": "wb", "a": "ab", "x": "xb"}  # modes of the file below a text or a buffer


class Disk:
    """Calls that write below a folder, one of which fails.

    Args:
        folder: of the disk.
        number: of the call that fails, from 1; 0 for none.
        code: of its error.
        lasting: whether all later calls fail, too.
        only: what begins the kind and path of the calls that count.
    """

    def __init__(
        self, folder: Path, number: int = 0, code: int = errno.ENOSPC, lasting: bool = False, only: str = ""
    ) -> None:
        self.folder, self.number, self.code, self.lasting = str(folder), number, code, lasting
        self.only = only
        self.calls: list[tuple[str, str]] = []  # kind and path

    def call(self, kind: str, path: Any, names: bool = False) -> None:
        """Note a call, which may fail; its error names the path where the system's does."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self.folder + os.sep):
            return
        name = os.path.relpath(path, self.folder)
        if not f"{kind} {name}".startswith(self.only):
            return
        self.calls.append((kind, name))
        late = len(self.calls) - self.number
        if self.number and (late == 0 or (self.lasting and late > 0)):
            text = os.strerror(self.code)
            raise OSError(self.code, text, os.fspath(path)) if names else OSError(self.code, text)


@contextmanager
def failing(disk: Disk) -> Iterator[None]:
    """Let calls of Python's within the block go to that disk."""
    rename, replace, sync, opened, mkdir, flush = (
        os.rename,
        os.replace,
        os.fsync,
        io.open,
        os.mkdir,
        np.memmap.flush,
    )

    class Raw(io.FileIO):
        kind, holds_more = "write", False

        def write(self, data: Any) -> int:
            disk.call(self.kind, self.name)
            self.holds_more = True
            return super().write(data)

        def close(self) -> None:
            super().close()
            if self.holds_more:  # an empty file has nothing that could be lost
                self.holds_more = False
                disk.call("close", self.name)

    def new_open(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
        writes = set(mode) & set("wax")
        if not writes or isinstance(file, int) or "opener" in named or "+" in mode:
            return opened(file, mode, buffering, *args, **named)
        if not os.path.exists(file):
            disk.call("create", file, names=True)
        raw = Raw(file, RAW[min(writes)])
        raw.kind = "append" if "a" in mode else "write"
        if buffering == 0:
            return raw
        buffer = io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *args, line_buffering=buffering == 1, **named)

    def before(function: Callable[..., Any], kind: str, place: int, names: bool = True) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if kind != "create" or not os.path.exists(given[place]):
                disk.call(kind, given[place], names)
            return function(*given, **named)

        return call

    def new_flush(array: np.memmap[Any, Any]) -> None:
        disk.call("sync", array.filename)
        flush(array)

    try:
        os.rename, os.replace = before(rename, "rename", 1), before(replace, "rename", 1)
        os.fsync, os.mkdir = before(sync, "sync", 0, names=False), before(mkdir, "create", 0)
        io.open = builtins.open = new_open
        np.memmap.flush = new_flush
        yield
    finally:
        os.rename, os.replace, os.fsync, os.mkdir = rename, replace, sync, mkdir
        io.open = builtins.open = opened
        np.memmap.flush = flush


def run_with(folder: str, number: str, code: str, lasting: str, told: str, *words: str) -> None:
    """Run a program on such a disk, and write to ``told`` what calls there were."""
    disk = Disk(Path(folder), int(number), int(code), lasting == "1")
    sys.argv = list(words)
    try:
        with failing(disk):
            runpy.run_path(words[0], run_name="__main__")
    finally:
        Path(told).write_text(json.dumps(disk.calls))


class Injected:
    """A job whose calls fail, one at a time.

    Args:
        job: the job.
        folder: an empty one.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.made, self.told = job, folder / "made", folder / "calls.json"
        given = folder / "given"
        given.mkdir(parents=True)
        self.words = job.prepare(given, self.made)
        self.counts = Counter[str]()
        self.faults: list[str] = []
        code, told = self._run()
        if code:
            raise AssertionError(f"{job.name} fails undisturbed: {told[-2000:]}")
        self.expected = contents(self.made)
        self.calls: list[tuple[str, str]] = json.loads(self.told.read_text())

    def _run(self, number: int = 0, code: int = 0, lasting: bool = False) -> tuple[int, str]:
        resume = self.job.record and (self.made / self.job.record).exists()
        words = [ROOT / "tools" / str(self.words[0]), *self.words[1:], *(["--resume"] if resume else [])]
        env = {**ENV, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        given = [self.made, number, code, int(lasting), self.told]
        process = Python("-c", PROGRAM, *given, *words, folder=self.made.parent, env=env)
        told = process.communicate()[1]
        return process.wait(), told

    def fail(self, number: int, code: int, lasting: bool) -> None:
        """Run the job from nothing, let one of its calls fail, and go on with it."""
        shutil.rmtree(self.made, ignore_errors=True)
        ended, told = self._run(number, code, lasting)
        kind, path = json.loads(self.told.read_text())[number - 1]
        about = f"{kind} {number}{' and later' if lasting else ''} of {path}, {os.strerror(code)}"
        self.counts["failed calls"] += 1
        errors = [line for line in told.splitlines() if line.startswith("error: ")]
        noise = "Traceback" in told or "Logging error" in told
        clean = ended == 2 and len(errors) == 1 and str(self.made) in errors[0] and os.strerror(code) in errors[0]
        if noise or not clean or ".part" in errors[0]:
            self._fault("messages", f"{about}: exit code {ended}: {told[-1500:]}")
        bad = half_written(self.made)
        bad += [name for name, _ in files(self.made) if unfinished(name) and not lasting]
        if bad:
            self._fault("half-written", f"{about}: left {bad}")
        if not (self.job.last and (self.made / self.job.last).exists()):
            ended, told = self._run()
        else:
            ended = 0
        found = contents(self.made)
        names = found.keys() | self.expected.keys()
        different = sorted(name for name in names if found.get(name) != self.expected.get(name))
        if ended or different:
            self._fault("losses", f"{about}: afterwards exit code {ended}, other files {different[:5]}; {told[-1500:]}")

    def _fault(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.faults.append(text)


def inject(job: Job, count: int, seed: int, tell: Callable[[str], None]) -> Injected:
    """Let so many calls of a job fail, one in each part of it, of every kind in turn."""
    draw = random.Random(f"{job.name} {seed}")
    with tempfile.TemporaryDirectory(prefix="injected-") as folder:
        trial = Injected(job, Path(folder).resolve())
        kinds = Counter(kind for kind, _ in trial.calls)
        tell(f"{job.name}: {len(trial.calls)} calls: {', '.join(f'{kinds[kind]} {kind}' for kind in sorted(kinds))}")
        by_kind = {kind: [n for n, call in enumerate(trial.calls, 1) if call[0] == kind] for kind in sorted(kinds)}
        for turn in range(count):
            kind = list(by_kind)[turn % len(by_kind)]
            trial.fail(draw.choice(by_kind[kind]), draw.choice(CODES[kind]), draw.random() < 1 / 2)
        for fault in trial.faults:
            tell(f"    {fault}")
        tell(f"  {job.name}: {trial.counts['failed calls']} failing calls")
    return trial
