"""Python in a process of its own, forked from one that has made the imports, which are most of a short program's time.

The new process sees the modules that it would have seen: what is imported before belongs to other packages.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "timm", "cv2", "matplotlib.pyplot", "torchvision", "mmengine.runner", "mmcv.transforms")
LIBRARIES += ("albumentations",)
SERVER = (
    f"import {', '.join(LIBRARIES)}"
    + """
import atexit, json, os, runpy, sys, traceback

sys.path.remove("")
runpy.run_path(sys.argv[1])
for line in sys.stdin:
    kind, given = json.loads(line)
    if kind in ("look", "wait"):
        found, status = os.waitpid(given, os.WNOHANG if kind == "look" else 0)
        answer = os.waitstatus_to_exitcode(status) if found else None
    else:
        answer = os.fork()
        if not answer:
            break
    print(json.dumps(answer), flush=True)
else:
    sys.exit()

# the new process
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, name in enumerate(given["files"], 1):
    os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
os.chdir(given["folder"])
os.environ.clear()
os.environ.update(given["environment"])
first, *rest = given["words"]
beside = os.getcwd() if first in ("-c", "-m") else os.path.dirname(os.path.abspath(first))
sys.path[:0] = [beside, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
code = 0
try:
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
except BaseException:
    traceback.print_exc()
    code = 1
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)  # Python would take two seconds to tear all of it down
"""
)


@cache
def _server() -> subprocess.Popen[str]:
    """It ends with the tests, whose end of the pipe is closed then."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", SERVER, str(Path(__file__).with_name("lighter_libraries.py"))]
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)


def _ask(kind: str, given: Any) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps([kind, given]) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


class Python:
    """``python WORDS`` in a folder, started. WORDS are a script, ``-m`` and a module, or ``-c`` and a program."""

    def __init__(
        self, *words: object, folder: Path | str = ".", env: Mapping[str, str] | None = None, joined: bool = False
    ) -> None:
        count = 1 if joined else 2
        self._files = [tempfile.NamedTemporaryFile("r", encoding="utf-8") for _ in range(count)]  # noqa: SIM115 - kept
        names = [file.name for file in self._files]
        environment = dict(os.environ if env is None else env)
        given = {"words": [str(word) for word in words], "folder": str(Path(folder).resolve())}
        self.pid: int = _ask("start", {**given, "environment": environment, "files": [*names, names[-1]][:2]})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask("look", self.pid)
        return self.returncode

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        if self.returncode is None:
            self.returncode = _ask("wait", self.pid)
        return self.returncode

    def communicate(self) -> list[str]:
        """What it has printed and what it has complained of, when it has ended."""
        self.wait()
        return [file.read() for file in self._files]

    def printed(self) -> str:
        """What it has printed; it must end well."""
        printed, *complaints = self.communicate()
        assert self.returncode == 0, printed[-2000:] + "".join(complaints)[-3000:]
        return printed


@contextmanager
def prepared_spawn() -> Iterator[None]:
    """Processes that multiprocessing would spawn are forked from one that has made the imports; the rest is as is."""
    contexts = vars(multiprocessing.context)["_concrete_contexts"]
    before, server = contexts["spawn"], multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(LIBRARIES))
    contexts["spawn"] = server
    try:
        yield
    finally:
        contexts["spawn"] = before


TORCHRUN = """
import os, runpy, sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
import symerge_dense.pipeline.train, symerge_dense.studies.frame.execution  # once for all that are forked from here

def work(*words):
    words = [*words, "--"]
    while words:
        end = words.index("--")
        sys.argv, words = words[:end], words[end + 1 :]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            if end.code:
                os._exit(end.code)

count, *words = sys.argv[1:]
place = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "run_id": "test", "start_method": "fork"}
elastic_launch(LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=int(count), max_restarts=0, **place), work)(*words)
"""


def torchrun(count: int, *words: object, folder: Path | str, env: Mapping[str, str]) -> Python:
    """PyTorch's torchrun with so many processes, started. Theirs are forked from it: they begin with its imports.

    WORDS are a script and its arguments, and after ``--`` a further script that the same processes run.
    """
    return Python("-c", TORCHRUN, count, *words, folder=folder, env=env)


def torchrun_environments(count: int) -> list[dict[str, str]]:
    """What torchrun tells each of ``count`` processes of one machine, which meet at a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [{**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


# The pages' networks are ResNets; their commands and files do the same with this one, up to ten times as fast.
NETWORK = {
    "backbone.name": "resnet10t",
    "backbone.channels": [8, 16, 24, 32],
    "backbone.stem_width": 8,
    "head.width": 8,
}
NETWORK_WORDS = [f"{key}={str(value).replace(' ', '')}" for key, value in NETWORK.items()]
SMALLER = {
    'dict(name="resnet18")': 'dict(name="resnet10t", channels=(8, 16, 24, 32), stem_width=8)',
    'TimmBackbone("resnet18")': 'TimmBackbone("resnet10t", channels=(8, 16, 24, 32), stem_width=8)',
    'TimmBackbone("resnet10t")': 'TimmBackbone("resnet10t", channels=(8, 16, 24, 32), stem_width=8)',
    'dict(type="MultiScale", width=64)': 'dict(type="MultiScale", width=8)',
    '{"type": "MultiScale", "width": 32}': '{"type": "MultiScale", "width": 8}',
}


def with_smaller_network(code: str) -> str:
    """A file as it is printed on a page, with ``NETWORK`` in place of its own."""
    for printed, smaller in SMALLER.items():
        code = code.replace(printed, smaller)
    return code


def run_printed(lines: Sequence[str], folder: Path) -> list[str]:
    """What each line of a page prints, run in ``folder`` as a reader would; a line begins with python or symerge.

    One with ``!`` before it must fail, and its output has its complaints too.
    """
    printed = []
    for line in lines:
        fails, line = line.startswith("! "), line.removeprefix("! ")
        # as bash reads it: quotes, wildcards, $(...), comments
        told = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {line}"], text=True, cwd=folder)
        program, *words = told.split("\0")[:-1]
        assert program in ("python", "symerge"), line
        start = words if program == "python" else ["-m", "symerge_dense.commands.cli", *words]
        process = Python(*start, folder=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, joined=fails)
        outputs = process.communicate()
        assert fails == bool(process.returncode), "\n".join([line, *(output[-3000:] for output in outputs)])
        printed.append(outputs[0])
    return printed
