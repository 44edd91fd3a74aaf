"""Independent work in processes and on a cluster of two nodes, one of which dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from symerge_dense.engine import fan_out
from symerge_dense.engine.fan_out import check_place, each

ray = pytest.importorskip("ray")
PATIENCE = 60  # seconds


def test_launched_processes_do_each_piece_once_whatever_is_there_when_they_begin(monkeypatch):
    store, made, results = HashStore(), [], {}

    def work(number):
        if number not in made:
            time.sleep(0.02)  # in which the other one looks, too
            made.append(number)
        return number

    def run(rank, items):
        results[rank] = sorted(launched[rank].each(work, [(item,) for item in items]))

    monkeypatch.setattr(fan_out, "meet", lambda: (store, len(launched), 2))
    launched = []
    for _ in range(2):
        launched.append(fan_out.Launched())
    threads = [threading.Thread(target=run, args=words) for words in ((0, range(8)), (1, range(1, 8)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(made) == list(range(8)) and results == {0: list(range(8)), 1: list(range(1, 8))}


class Told(Exception):
    """A signal came."""


def test_a_launched_process_that_waits_for_the_others_hears_a_signal(monkeypatch):
    def tell(number, frame):
        raise Told

    store, before = HashStore(), signal.signal(signal.SIGUSR1, tell)
    monkeypatch.setattr(fan_out, "meet", lambda: (store, 0, 2))
    timers = [threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)), threading.Timer(9, store.set, ("1/1", ""))]
    for timer in timers:
        timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(Told):
            list(fan_out.Launched().each(abs, [(1,)]))
    finally:
        timers[1].cancel()
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 5


def square(number: int, folder: str) -> tuple[int, int]:
    return number**2, os.getpid()


def first_try_never_ends(number: int, folder: str) -> tuple[int, str]:
    """Piece 0 waits, until its node is killed; all note where they are."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    notes = Path(folder)
    tries = len(list(notes.glob(f"{number}-*")))
    (notes / f"{number}-{tries}").write_text(node)
    if number == 0 and tries == 0:
        time.sleep(10 * PATIENCE)
    return number, node


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.1)


def breaks(number: int, folder: str) -> int:
    raise ValueError(f"piece {number} cannot be done; take another one.")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})  # its death would end the cluster
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_is_done_on_this_machine(jobs: int, tmp_path: Path) -> None:
    found = list(each(square, [(number, "") for number in range(4)], jobs))
    assert sorted(value for value, _ in found) == [0, 1, 4, 9]
    assert (os.getpid() in {process for _, process in found}) == (jobs == 1)


def test_an_error_there_is_an_error_here(cluster: Any) -> None:
    with pytest.raises(ValueError, match=r"piece 3 cannot be done; take another one\."):
        list(each(breaks, [(3, "")], on=f"ray:{cluster.address}"))


def test_a_node_that_dies_costs_its_piece_only(cluster: Any, tmp_path: Path) -> None:
    found: list[tuple[int, str]] = []
    pieces = [(number, str(tmp_path)) for number in range(6)]
    for done in each(first_try_never_ends, pieces, on=f"ray:{cluster.address}"):
        found.append(done)
        if len(found) == 1:
            wait_for(tmp_path / "0-0")
            lost = (tmp_path / "0-0").read_text()
            node = next(node for node in cluster.list_all_nodes() if node.node_id == lost)
            cluster.remove_node(node, allow_graceful=False)
    assert sorted(number for number, _ in found) == list(range(6))
    assert len(list(tmp_path.iterdir())) == 7, "piece 0 was tried twice, the others once"
    assert dict(found)[0] != lost


@pytest.mark.parametrize("on", ["rays", "ray:", "dask", "slurm:here"])
def test_places_that_do_not_exist(on: str) -> None:
    with pytest.raises(ValueError, match=f"--on {on}: give ray, or ray:ADDRESS such as ray:auto"):
        check_place(on)


def test_a_cluster_that_is_not_there() -> None:
    ray.shutdown()
    with pytest.raises(ValueError, match=r"no cluster is reached .*; start one by ray start"):
        list(each(square, [(1, "")], on="ray:127.0.0.1:1"))


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'symerge-dense\[ray\]'"):
        check_place("ray")
