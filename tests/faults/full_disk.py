"""A disk that is full, at one write after another of a job: a message, old files whole, and then the same result.

The disk is real: a file system in memory (tmpfs) of so many bytes, so that every library, and the system itself for
mapped files, meets the fault in its own way. Sizes are spread evenly from nothing to what the job takes; where a job
looks for room before it begins, the disk shrinks to that size when the first bytes are written. Each time the
job must end with exit code 2 and one message that names a file, without half a file under a final name and
without unfinished ones; when the disk has grown it goes on, and ends with the files of a run on a large disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.pipeline_tiny import ENV, ROOT
from builders.prepared_python import Python

from faults.jobs import Job, contents, files, half_written, unfinished

LARGE, PAGE = 1 << 30, 4096
FULL = "cannot be read or written (No space left on device); make room on its disk."
REFUSED = re.compile(r"\d ([MG]i?B )?(are )?free")  # by a check before the work, which knows the sizes


def mount(folder: Path, *options: str) -> bool:
    """Put a file system in memory at a folder, or change its options; False where that is not allowed."""
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, check=False)
    return done.returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def may_mount() -> bool:
    """Whether this process may mount file systems."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = mount(Path(folder), "-o", "size=64k")
        unmount(Path(folder))
    return done


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a folder, empty at first."""
    folder.mkdir(parents=True, exist_ok=True)
    if not mount(folder, "-o", f"size={size}"):
        raise OSError(f"{folder}: nothing may be mounted here")
    try:
        yield
    finally:
        unmount(folder)


class FullDisk:
    """A job on disks that are too small for it.

    Args:
        job: the job.
        folder: an empty one.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.made, given = job, folder / "disk" / "made", folder / "given"
        self.place = self.made / job.full if job.full else folder / "disk"
        given.mkdir(parents=True)
        self.words = job.prepare(given, self.made)
        self.counts = Counter[str]()
        self.faults: list[str] = []
        self.named: set[str] = set()  # files whose writes have failed
        with disk(self.place, LARGE):
            code, told = self._run()
            if code:
                raise AssertionError(f"{job.name} fails on a large disk: {told[-2000:]}")
            self.expected = contents(self.made)
            self.size = sum(path.stat().st_blocks * 512 for path in self.place.rglob("*"))

    def _run(self, shrink: int = 0) -> tuple[int, str]:
        resume = self.job.record and (self.made / self.job.record).exists()
        words = [ROOT / "tools" / str(self.words[0]), *self.words[1:], *(["--resume"] if resume else [])]
        process = Python(*words, folder=self.made.parents[1], env=ENV)
        while shrink and process.poll() is None:
            used = shutil.disk_usage(self.place).used
            if used > PAGE and mount(self.place, "-o", f"remount,size={max(shrink, used)}"):
                break
        told = process.communicate()[1]
        return process.wait(), told

    def try_size(self, size: int, late: bool) -> bool:
        """Run the job on a disk of so many bytes, then on a larger one; False if it fitted at once."""
        if self.job.full:
            shutil.rmtree(self.made)
        with disk(self.place, LARGE if late else size):
            code, told = self._run(size if late else 0)
            if code == 0:
                return False
            self.counts["full"] += 1
            self._check_end(size, code, told)
            if not mount(self.place, "-o", f"remount,size={LARGE}"):
                raise OSError(f"{self.place}: cannot grow")
            whole = bool(self.job.last) and (self.made / self.job.last).exists()
            code, told = (0, "") if whole else self._run()
            found = contents(self.made)
        names = found.keys() | self.expected.keys()
        different = sorted(name for name in names if found.get(name) != self.expected.get(name))
        if code or different:
            self.counts["losses"] += 1
            self._fault(size, f"afterwards exit code {code}, other files: {different[:5]}; {told[-1500:]}")
        return True

    def _check_end(self, size: int, code: int, told: str) -> None:
        errors = [line for line in told.splitlines() if line.startswith("error: ")]
        clean = code == 2 and len(errors) == 1 and "Traceback" not in told and "Logging error" not in told
        if not clean or str(self.place) not in errors[0] or not (FULL in errors[0] or REFUSED.search(errors[0])):
            self.counts["messages"] += 1
            self._fault(size, f"exit code {code}: {told[-1500:]}")
        else:
            self.named.add(errors[0].split(str(self.place))[1].split()[0].rstrip(":,;"))
        bad = half_written(self.made) + [name for name, _ in files(self.made) if unfinished(name)]
        if bad:
            self.counts["half-written"] += 1
            self._fault(size, f"left: {bad}")

    def _fault(self, size: int, text: str) -> None:
        self.faults.append(f"{size} bytes: {text}")


def sweep(job: Job, sizes: int, tell: Callable[[str], None], first: int = 0) -> FullDisk:
    """Run a job on so many disks, from ``first`` bytes to what its files take in the end."""
    with tempfile.TemporaryDirectory(prefix="full-") as folder:
        trial = FullDisk(job, Path(folder).resolve())
        step, size = max((trial.size - first) // sizes, PAGE), max(first, PAGE)
        tell(f"{job.name}: {trial.size >> 10} KiB, each disk {step >> 10} KiB larger")
        late = bool(job.last or not job.record)
        while trial.counts["full"] < 2 * sizes:
            if trial.try_size(size, late):
                size += step
            elif late and not trial.counts["full"]:
                late = False  # it wrote all of it before the disk could shrink
            else:
                break
        for fault in trial.faults:
            tell(f"    {fault}")
        tell(f"  {job.name}: {trial.counts['full']} full disks, {len(trial.named)} files named: {sorted(trial.named)}")
    return trial
