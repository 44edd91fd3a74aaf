"""Jobs killed at random moments and resumed: what they end with is what an unbroken run ends with.

Each job is killed (SIGKILL, the whole process group) up to three times in a row, resumed in the documented way, and
compared with a run that nobody disturbed: every file, apart from times and memory. A loss is a resumed run that fails,
or a file that is missing, additional or different at the end. After each kill, every file under a final name must be
whole.

After the kills come full disks (``faults.full_disk``), where file systems may be mounted, and single calls that fail
(``faults.injected``).

    make torture                                  50 kills, 40 full disks, 60 failing calls: some 40 minutes
    make torture ARGS="--kills 8 --disks 0 --calls 0 --only merge"
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from builders.pipeline_tiny import ENV, ROOT
from builders.prepared_python import Python

from faults.full_disk import may_mount, sweep
from faults.injected import inject
from faults.jobs import JOBS, Job, contents, half_written

GROUP = "import os, runpy, sys; os.setpgid(0, 0); del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
MOST = 3  # kills in a row
KILLS, DISKS, CALLS = 50, 40, 60  # of all jobs together
SHORTER = 0.9  # of the time that a job seems to take, where it had ended before it was killed


class Trial:
    """A job, and what an unbroken run of it writes.

    Args:
        job: the job.
        folder: an empty one.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.made = job, folder / "made"
        given = folder / "given"
        given.mkdir(parents=True)
        self.words = job.prepare(given, self.made)
        self.counts = Counter[str]()
        self.faults: list[str] = []
        Python("-c", "pass").wait()  # the first starts the server
        began = time.monotonic()
        process = self._start()
        while process.poll() is None and not self.made.exists():
            time.sleep(0.005)
        self.first = time.monotonic() - began  # imports are most of what was before
        said = process.communicate()
        self.whole = time.monotonic() - began
        if process.returncode:
            raise AssertionError(f"{job.name} fails undisturbed: {said[1][-2000:]}")
        self.expected = contents(self.made)
        if bad := half_written(self.made):
            raise AssertionError(f"{job.name}: {bad}")

    def _start(self) -> Python:
        resume = self.job.record and (self.made / self.job.record).exists()
        words = [ROOT / "tools" / str(self.words[0]), *self.words[1:], *(["--resume"] if resume else [])]
        return Python("-c", GROUP, *words, folder=self.made.parent, env=ENV)

    def run(self, draw: random.Random, most: int, tell: Callable[[str], None]) -> int:
        """Run the job once from nothing with up to ``most`` kills; returns how many there were."""
        shutil.rmtree(self.made, ignore_errors=True)
        kills, last = 0, self.made / (self.job.last or "none")
        while kills < most and not last.exists() and self._killed(draw.random()):
            kills += 1
            self.counts["kills"] += 1
            bad = half_written(self.made)
            self.counts["half-written"] += len(bad)
            self._fault(tell, *bad)
        if kills == 0:
            self.whole *= SHORTER
            return 0
        if not last.exists():
            process = self._start()
            said = process.communicate()
            self.counts["resumes"] += 1
            if process.returncode:
                self.counts["losses"] += 1
                self._fault(tell, f"exit code {process.returncode}: {said[1][-2000:]}")
                return kills
        found = contents(self.made)
        names = found.keys() | self.expected.keys()
        different = sorted(name for name in names if found.get(name) != self.expected.get(name))
        self.counts["losses"] += bool(different)
        self._fault(tell, *(_what(found.get(name), self.expected.get(name), name) for name in different))
        return kills

    def _killed(self, part: float) -> bool:
        """Start the job or go on with it, and kill it in this part of its time; False if it has ended by then."""
        fresh, process, began = not self.made.exists(), self._start(), time.monotonic()
        moment = part * (self.whole - self.first) + (0 if fresh else self.first)
        while (fresh and not self.made.exists()) or time.monotonic() - began < moment:
            if process.poll() is not None:
                return False
            if fresh and self.made.exists():
                fresh, began = False, time.monotonic()
            time.sleep(0.001)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def _fault(self, tell: Callable[[str], None], *texts: str) -> None:
        for text in texts:
            self.faults.append(text)
            tell(f"    {text}")


def _what(found: object, expected: object, where: str) -> str:
    """The first place in which two values differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(found.keys() | expected.keys())
        name = next(name for name in names if found.get(name) != expected.get(name))
        return _what(found.get(name), expected.get(name), f"{where}: {name}")
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        index = next(index for index, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
        return _what(found[index], expected[index], f"{where}: {index}")
    return f"{where} is {str(found)[:80]}, undisturbed {str(expected)[:80]}"


def torture(job: Job, kills: int, seed: int, tell: Callable[[str], None]) -> Trial:
    """Kill a job so many times, at moments that the seed draws."""
    draw = random.Random(f"{job.name} {seed}")
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        trial = Trial(job, Path(folder).resolve())
        tell(f"{job.name}: {trial.whole:.1f} s undisturbed, its first file after {trial.first:.1f} s")
        while (left := kills - trial.counts["kills"]) > 0:
            if now := trial.run(draw, min(left, draw.randint(1, MOST)), tell):
                tell(f"  {job.name}: {now} kills and resumed, {trial.counts['kills']} of {kills}")
    return trial


def shared(jobs: Sequence[Job], kills: int, disks: int, calls: int) -> dict[Job, tuple[int, int, int]]:
    """Each job's part of all kills, full disks and failing calls."""
    share, killed = sum(job.share for job in jobs), sum(job.kills for job in jobs) or 1
    return {
        job: (
            round(kills * job.kills / killed),
            round(disks * job.share / share),
            round(calls * job.share / share),
        )
        for job in jobs
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make torture", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=KILLS, help="of all jobs together, default %(default)s")
    parser.add_argument("--disks", type=int, default=DISKS, help="full ones, of all jobs together, default %(default)s")
    parser.add_argument("--calls", type=int, default=CALLS, help="that fail, of all jobs together, default %(default)s")
    parser.add_argument("--only", default="", help="jobs whose names have this part")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    chosen = [job for job in JOBS if options.only in job.name]
    if options.disks and not may_mount():
        options.disks = 0
        _tell("no full disks: a small one cannot be mounted here, which takes root on Linux")
    lines, total = list[tuple[str, Counter[str]]](), Counter[str]()
    columns = ("kills", "resumes", "full", "failed calls", "messages", "losses", "half-written")
    for job, (kills, disks, calls) in shared(chosen, options.kills, options.disks, options.calls).items():
        counts = torture(job, kills, options.seed, _tell).counts if kills else Counter[str]()
        if disks:
            counts.update(sweep(job, disks, _tell).counts)
        if calls:
            counts.update(inject(job, calls, options.seed, _tell).counts)
        total.update(counts)
        lines.append((job.name, counts))
    print(f"| job | {' | '.join(columns)} |")
    for name, counts in [*lines, ("all", total)]:
        print(f"| {name} | {' | '.join(str(counts[column]) for column in columns)} |")
    return int(total["losses"] + total["half-written"] + total["messages"] > 0)


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
