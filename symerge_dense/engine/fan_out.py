"""Independent work: one piece after another, in several processes, by those of torchrun, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from symerge_dense.engine.processes import meet
from symerge_dense.fileio import optional_import
from symerge_dense.registry import import_plugins, imported

TRIES = 3  # more, of a piece whose machine or process died
REACHED = 10  # seconds, within which a cluster answers
LOOKS = 0.05  # seconds between two looks for the others; a launcher ends all when one dies


def each(
    work: Callable[..., Any], items: Sequence[tuple[Any, ...]], jobs: int = 1, on: str | None = None
) -> Iterator[Any]:
    """What ``work(*item)`` returns for every item, in the order of completion.

    Work is done in this process with one job, else in processes that import the same plug-ins, each with a GPU of its
    own where there are several. On a cluster, folders must be the same on all machines; a piece whose machine dies is
    done by another one.

    Args:
        work: can be pickled, as the items can.
        items: arguments.
        jobs: processes on this machine.
        on: None for this machine, or 'ray' or 'ray:ADDRESS', see ``check_place``.

    Raises:
        ValueError: as ``check_place`` does, or the cluster cannot be reached.
    """
    if on is not None:
        yield from _on_ray(work, items, check_place(on))
    elif jobs == 1 or len(items) < 2:
        for item in items:
            yield work(*item)
    else:
        yield from _in_processes(work, items, jobs)


def check_place(on: str) -> str | None:
    """The address of a Ray cluster in the words of a user; None starts one on this machine, or takes RAY_ADDRESS.

    Args:
        on: 'ray', or 'ray:ADDRESS' such as 'ray:auto' (the cluster of this machine) or 'ray:ray://head:10001'.

    Raises:
        ValueError: it begins with another word, or Ray is not installed.
    """
    name, colon, address = on.partition(":")
    if name != "ray" or (colon and not address):
        raise ValueError(f"--on {on}: give ray, or ray:ADDRESS such as ray:auto; leave it out for this machine alone.")
    optional_import("ray", f"--on {on}", extra="ray")
    return address or None


# -- processes of this machine ----------------------------------------------------------------------------------------
def _in_processes(work: Callable[..., Any], items: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    before = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    number = spawn.Value("i", 0)
    executor = ProcessPoolExecutor(min(jobs, len(items)), spawn, _start, (number, list(imported)))
    try:
        for done in as_completed([executor.submit(work, *item) for item in items]):
            yield done.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in before:
                child.terminate()
        raise
    executor.shutdown()


def _start(number: Any, plugins: Sequence[str]) -> None:
    """Prepare a process: the plug-ins of the command line, and a GPU of its own where there are several."""
    import_plugins(plugins)
    with number.get_lock():
        own, number.value = number.value, number.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(own % torch.cuda.device_count())


class Launched:
    """The processes that torchrun started, each for a share of independent work that all of them find in one folder.

    They form no process group, so that each does a piece as one process alone does it.

    Raises:
        ValueError: torchrun did not start this process.
    """

    def __init__(self) -> None:
        self._store, self.rank, self.processes = meet()
        self._stage = 0
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())

    def each(self, work: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """What ``work(*item)`` returns for every item: those that no other process took, then, kept by now, the others.

        Args:
            work: keeps what it makes where all processes find it, and makes nothing that is there.
            items: arguments, plain values. A list may lack what another process has made by now.
        """
        self._stage += 1
        others = []
        for item in items:
            if self._store.add(f"{self._stage}/{item!r}", 1) == 1:
                yield work(*item)
            else:
                others.append(item)
        self._store.set(f"{self._stage}/{self.rank}", "done")
        done = [f"{self._stage}/{rank}" for rank in range(self.processes)]
        while not self._store.check(done):  # its own waiting hears no signal
            time.sleep(LOOKS)
        for item in others:
            yield work(*item)


# -- machines of a cluster --------------------------------------------------------------------------------------------
def _on_ray(work: Callable[..., Any], items: Sequence[tuple[Any, ...]], address: str | None) -> Iterator[Any]:
    import ray

    _join(address)
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = 1 if resources.get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=TRIES)(_there)
    here = os.getcwd(), list(imported), torch.get_num_threads()
    waiting = [remote.remote(*here, work, *item) for item in items]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"a run died on the cluster {TRIES + 1} times ({first}); a machine may lack memory. Go on with --resume."
        ) from error
    finally:
        for piece in waiting:
            ray.cancel(piece, force=True)


def _join(address: str | None) -> None:
    """Join a cluster, or start one, until the process ends: its workers have read the libraries for the next stage."""
    import ray

    if ray.is_initialized():
        return
    try:
        if address is not None and ":" in address:  # Ray itself tries for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), REACHED).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"--on ray:{address}: no cluster is reached ({error}); start one by ray start.") from error


def _there(folder: str, plugins: Sequence[str], threads: int, work: Callable[..., Any], *item: Any) -> Any:
    """Do a piece on another machine as this one would."""
    os.chdir(folder)
    import_plugins(plugins)
    torch.set_num_threads(threads)
    return work(*item)
