"""Damaged files for every reader, in processes of their own: what is read, what is refused, and what is a fault.

A fault is any error but ValueError, an input that takes too long or too much memory, a process that dies, code that a
file starts or a file that it writes elsewhere, a result that a checksum should have refused, and a message that could
move the cursor of a terminal.

    make fuzz                                  10^5 inputs, some minutes
    make fuzz ARGS="--inputs 2000 --only .mat"
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from fuzz import arrays, records, weights
from fuzz.formats import STRATEGIES
from fuzz.mutations import Damage
from fuzz.reader import Reader

READERS = [*arrays.READERS, *weights.READERS, *records.READERS]
SECONDS = 5.0  # for one input, on a busy machine; most take milliseconds
MEMORY = 1 << 30  # bytes beyond what the process has when it starts
STARTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
watched: list[Path] = []  # the folder that readers may write to, while one is at work
seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not watched:
        return
    if event in STARTS:
        seen.append(f"{event} {arguments[:1]}")
    elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int) and arguments[2] & WRITES:
        outside = not Path(arguments[0]).absolute().is_relative_to(watched[0])
        seen.extend([f"writes {arguments[0]}"] if outside and arguments[0] != os.devnull else [])


sys.addaudithook(_audit)


@contextlib.contextmanager
def bounded(folder: Path) -> Iterator[None]:
    """At most ``MEMORY`` more address space, and an eye on what is started and written."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    watched.append(folder)
    try:
        yield
    finally:
        watched.clear()
        resource.setrlimit(resource.RLIMIT_AS, limits)


class Trial:
    """A reader with its real files.

    Args:
        reader: the reader.
        folder: an empty one.
    """

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        paths = reader.make(folder)
        self.files = [path.read_bytes() for path in paths]
        self.target = folder / "damaged" / paths[0].name
        self.known = set()
        for content in self.files:
            fault = self(content)
            if fault != "read":
                raise AssertionError(f"{reader.name} does not take a real file: {fault}")

    def __call__(self, content: bytes) -> str:
        """Read one file: 'read', 'refused', or the fault."""
        self.target.parent.mkdir(exist_ok=True)
        if self.target.is_dir():
            shutil.rmtree(self.target)
        self.target.write_bytes(content)
        out, began, result = io.StringIO(), time.monotonic(), None
        seen.clear()
        verdict = "read"
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with bounded(self.folder):
                    result = self.reader.read(self.target)
            except ValueError as error:
                verdict = "refused"
                if isinstance(error, UnicodeError | json.JSONDecodeError) or str(self.folder) not in str(error):
                    verdict = f"names no file: {_where(error)}"
            except BaseException as error:
                verdict = _where(error)
        if seen:
            return f"does more than read: {seen[0]}"
        if time.monotonic() - began > SECONDS:
            return f"takes {time.monotonic() - began:.0f} s"
        if verdict == "read" and self.reader.known is not None:
            value = self.reader.known(result)
            if len(self.known) < len(self.files) and content in self.files:
                self.known.add(value)
            elif value not in self.known:
                return "a wrong result that a checksum should have refused"
        return verdict


def _where(error: BaseException) -> str:
    """An error by its class and the last line of this package that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/symerge_dense/" in frame.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    place = last.filename.rpartition("/symerge_dense/")[2]
    return f"{type(error).__name__} at {place}:{last.lineno}: {' '.join(str(error).split())[:120]}"


def _work(number: int, inputs: int, seed: int, kept: str, pipe: Any) -> None:
    """Read damaged files, and tell the verdicts."""
    reader = READERS[number]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        try:
            trial = Trial(reader, Path(name).resolve())
        except BaseException:
            pipe.send(f"the harness itself fails: {traceback.format_exc()}")
            return
        current = Path(kept) / f"current-{number}"

        @seeded(seed)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(STRATEGIES[reader.format])
        def read(damage: Damage) -> None:
            content = damage(trial.files)
            current.write_bytes(content)
            pipe.send(None)
            pipe.send(trial(content))

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries in C say of damaged files
        try:
            read()
        except BaseException:
            pipe.send(f"the harness itself fails: {traceback.format_exc()}")
        current.unlink(missing_ok=True)
        pipe.send("done")


def run(number: int, inputs: int, seed: int, kept: Path) -> tuple[Counter[str], dict[str, bytes]]:
    """Verdicts on a reader's inputs, and one input for each fault. A process that dies or hangs is started again."""
    found, examples = Counter[str](), dict[str, bytes]()
    context = multiprocessing.get_context("fork")
    while (left := inputs - sum(found.values())) > 0:
        ours, theirs = context.Pipe()
        child = context.Process(target=_work, args=(number, left, seed + sum(found.values()), str(kept), theirs))
        child.start()
        theirs.close()
        current, before = kept / f"current-{number}", sum(found.values())
        while True:
            try:
                verdict = ours.recv() if ours.poll(60 + SECONDS) else "hangs"
            except EOFError:
                child.join()
                verdict = f"dies ({child.exitcode})"
            if verdict is None:
                continue
            if verdict == "done":
                break
            key = verdict.split(": ")[0] if " at " in verdict else verdict
            found[key] += 1
            if key not in ("read", "refused") and key not in examples:
                examples[key] = current.read_bytes() if current.exists() else b""
                print(f"    {verdict}", flush=True)
            if verdict.startswith("the harness"):
                raise RuntimeError(verdict)
            if verdict.startswith(("hangs", "dies")):
                child.kill()
                break
        child.join()
        ours.close()
        if sum(found.values()) == before or verdict == "done":
            break  # no more different inputs
    return found, examples


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together, default 100000")
    parser.add_argument("--only", default="", help="readers whose names have this part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default="fuzz-faults", help="where an input of each fault is kept")
    options = parser.parse_args(words)
    chosen = [number for number, reader in enumerate(READERS) if options.only in reader.name]
    shares, faults = sum(READERS[number].share for number in chosen), 0
    total, kept = Counter[str](), Path(options.keep)
    kept.mkdir(parents=True, exist_ok=True)
    for number in chosen:
        reader, began = READERS[number], time.monotonic()
        found, examples = run(number, round(options.inputs * reader.share / shares), options.seed, kept)
        for key, content in examples.items():
            (kept / f"{number}-{hashlib.sha256(key.encode()).hexdigest()[:8]}").write_bytes(content)
        bad = sum(found.values()) - found["read"] - found["refused"]
        total.update(inputs=sum(found.values()), read=found["read"], refused=found["refused"])
        faults += bad
        print(
            f"| {reader.name} | {sum(found.values())} | {found['read']} | {found['refused']} | {bad} | "
            f"{time.monotonic() - began:.0f} s |",
            flush=True,
        )
    print(f"| all {len(chosen)} | {total['inputs']} | {total['read']} | {total['refused']} | {faults} | |")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
