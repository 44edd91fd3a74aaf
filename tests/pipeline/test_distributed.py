"""The main job and its tools on two and four processes: the record of one, every file once, one voice at the end."""

import functools
import json
import multiprocessing
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.pipeline_tiny import ENV, ROOT, TASKS, write_config
from builders.prepared_python import Python, torchrun, torchrun_environments
from faults.jobs import half_written

from symerge_dense.adaptation.history import read_history
from symerge_dense.commands.cli import run_tool
from symerge_dense.models.checkpoint import load_model, read_metadata
from symerge_dense.models.multi_task import NonFiniteLoss, check_finite
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data import labels_fingerprint
from symerge_dense.pipeline.train import train
from symerge_dense.report.agreement import read_record

# numbers of images that neither two nor four processes share evenly
RUNNING = "adaptation['statistics'] = 'running'\ndata['unlabelled']['count'] = 7\ndata['test']['count'] = 5\n"
DYING = """
custom_imports = dict(imports=["dying"])
custom_hooks = [dict(type="Dying", order=ORDER)]
"""
HOOK = """
import os, signal

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from symerge_dense.registry import HOOKS


@HOOKS.register_module()
class Dying(Hook):
    def __init__(self, order):
        self.order = order

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2 and get_rank() == 1 and os.path.exists(self.order):
            os.remove(self.order)
            os.kill(os.getpid(), signal.SIGKILL)
"""
COUNTS = pytest.mark.parametrize("count", [2, 4])


def values(row):
    return {(task, name): metric["value"] for task, metrics in row["tasks"].items() for name, metric in metrics.items()}


def names(folder):
    """Every file and folder under ``folder``; in names made of a date and time (MMEngine's log), # for the digits."""
    return sorted({re.sub(r"\d{8}_\d{6}", "#", path.relative_to(folder).as_posix()) for path in folder.rglob("*")})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same job by one process, which trains base and experts, and by two and four, which are given them.

    Of the four one is killed in a step, and the run resumed. They measure the finished model once more.
    """
    folder = tmp_path_factory.mktemp("distributed")
    train(load_config(write_config(folder, more=RUNNING)), work_dir=str(folder / "one"))
    stock = {path.name.split("-")[0]: str(path) for path in (folder / "experts").glob("*.safetensors")}
    base = stock.pop("base")
    given = RUNNING + f"base = dict(checkpoint={base!r})\nexperts = dict(checkpoints={stock!r})\n"
    (folder / "dying.py").write_text(HOOK)
    (folder / "order").touch()
    configs = {
        2: write_config(folder, "given.py", given),
        4: write_config(folder, "dying_one.py", given + DYING.replace("ORDER", repr(str(folder / "order")))),
    }
    before = {*folder.iterdir(), folder / "__pycache__"}

    def start(count, *more):
        words = ["--launcher", "pytorch", "--work-dir", folder / str(count), *more]
        return torchrun(count, ROOT / "tools" / "train.py", configs[count], *words, folder=folder, env=ENV)

    printed = {2: start(2).printed()}
    began = time.monotonic()
    killed = start(4)
    complaints = killed.communicate()[1]
    took = time.monotonic() - began
    broken = half_written(folder / "4")
    again = ["--", ROOT / "tools" / "test.py", configs[4], folder / "4" / "merged.safetensors"]
    printed[4] = start(4, "--resume", *again, "--launcher", "pytorch", "--json").printed()
    return SimpleNamespace(
        one=folder / "one",
        several={count: folder / str(count) for count in configs},
        printed=printed,
        killed=SimpleNamespace(code=killed.returncode, complaints=complaints, half_written=broken, seconds=took),
        measured=json.loads(printed[4].strip().splitlines()[-1]),
        new={path.name for path in set(folder.iterdir()) - before},
    )


def both(runs, count):
    return [read_record(run / "results.json") for run in (runs.one, runs.several[count])]


def furthest(one, several):
    """The largest difference of two dicts of numbers or arrays."""
    as_numbers = functools.partial(torch.as_tensor, dtype=torch.float64)
    return max(float((as_numbers(several[name]) - as_numbers(value)).abs().max()) for name, value in one.items())


@COUNTS
@pytest.mark.parametrize("row", ["experts", "average", "task_arithmetic", "initial"])
def test_what_is_not_learned_scores_the_same(runs, row, count):
    one, several = (values(record[row]) for record in both(runs, count))
    assert set(one) == set(several) and {task for task, _ in one} == set(TASKS)
    assert several == pytest.approx(one, rel=1e-6, abs=1e-6)


@COUNTS
def test_what_is_learned_differs_by_rounding_only(runs, count):
    one, several = both(runs, count)
    # gradients are averaged over processes: sums in another order; a pixel at a tie may change its class
    assert values(several["merged"]) == pytest.approx(values(one["merged"]), rel=1e-4, abs=0.02)
    for name, coefficients in one["coefficients"].items():
        assert several["coefficients"][name] == pytest.approx(coefficients, abs=1e-5), name
    assert one["coefficients"] != {name: [0.3] * 3 for name in one["coefficients"]}
    first, second = (read_history(run / "history.jsonl") for run in (runs.one, runs.several[count]))
    assert [row["iteration"] for row in second] == [row["iteration"] for row in first] == [0, 1, 2, 3]
    for task in TASKS:  # a process reports the loss of its own part of the batch
        assert second[0][f"loss_{task}"] == pytest.approx(first[0][f"loss_{task}"], rel=1.0)


@COUNTS
def test_the_file_is_the_model_of_the_record(runs, count):
    one, several = (load_model(run / "merged.safetensors")[0].state_dict() for run in (runs.one, runs.several[count]))
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)
    records = both(runs, count)
    print(f"\n{count} processes and one differ by at most")
    for row in ("experts", "average", "task_arithmetic", "initial", "merged"):
        print(f"  {furthest(*(values(record[row]) for record in records)):.1e} in metrics of {row}")
    print(f"  {furthest(*(record['coefficients'] for record in records)):.1e} in coefficients")
    print(f"  {furthest(one, several):.1e} in weights and statistics")


@COUNTS
def test_an_uneven_pool_is_labelled_as_one_process_labels_it(runs, count):
    for task in TASKS:
        files = [run / "labels" / f"{task}.npy" for run in (runs.one, runs.several[count])]
        assert np.load(files[0]).shape[0] == 7 and files[1].read_bytes() == files[0].read_bytes(), task


def test_four_processes_measure_what_one_measures(runs):
    merged = read_record(runs.several[4] / "results.json")["merged"]
    assert values({"tasks": runs.measured}) == pytest.approx(values(merged), rel=1e-6, abs=1e-6)


def test_a_killed_process_ends_all_with_one_message(runs):
    assert runs.killed.code and runs.killed.seconds < 60 and not runs.killed.half_written
    ours = [line for line in runs.killed.complaints.splitlines() if "--resume" in line]
    assert len(ours) == 1 and re.match(r"rank [023]: (error: another process .* has ended|interrupted;)", ours[0])
    assert not re.search(r'File ".*symerge_dense', runs.killed.complaints), "no traceback"


@COUNTS
def test_every_file_is_written_once_and_nothing_is_left_over(runs, count):
    folder = runs.several[count]
    assert names(folder) == names(runs.one)
    assert runs.new == {"2", "4"}  # nothing outside of the run's folder
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".part") or path.name.startswith(".")]
    for heading in ("Base and experts", "peak"):
        assert runs.printed[count].count(heading) == 1, heading


def test_two_processes_render_train_and_merge_from_nothing(tmp_path):
    config = write_config(tmp_path, more=RUNNING)
    words = [ROOT / "tools" / "train.py", config, "--launcher", "pytorch", "--work-dir", tmp_path / "run"]
    ranks = [Python(*words, folder=tmp_path, env=ENV | given) for given in torchrun_environments(2)]
    printed = "".join(rank.printed() for rank in ranks)
    kept = {path.name.split("-")[0]: path for path in (tmp_path / "experts").iterdir()}
    loaded = load_config(config)
    assert set(kept) == {"base", *TASKS}, "each is trained once, and nothing else is left there"
    for task in TASKS:
        spec = {task: loaded.tasks[task]}
        assert read_metadata(kept[task])["labels"] == labels_fingerprint(loaded, spec), task
        assert printed.count(f"expert {task} is missing, training it") == 1
    assert set(read_record(tmp_path / "run" / "results.json")["merged"]["tasks"]) == set(TASKS)


# -- when one of two fails ---------------------------------------------------------------------------------------------
def as_rank(rank, meeting, work, answers, heard):
    try:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        answers.put((rank, work(rank)))
        heard.wait()  # who leaves early breaks the group, which the other may be about to join
    except BaseException as error:
        answers.put((rank, error))
        raise


@pytest.fixture
def on_two(tmp_path):
    """Answers of ``work(rank)`` from two processes that know of each other."""

    def run(work):
        context = multiprocessing.get_context("fork")
        answers, heard = context.Queue(), context.Event()
        given = [(rank, tmp_path / "meet", work, answers, heard) for rank in range(2)]
        ranks = [context.Process(target=as_rank, args=words, daemon=True) for words in given]
        for process in ranks:
            process.start()
        found = dict(answers.get(timeout=60) for _ in ranks)
        heard.set()
        for process in ranks:
            process.join()
        return [found[0], found[1]]

    return run


def test_a_loss_that_is_not_finite_stops_every_process(on_two):
    def work(rank):
        check_finite({"loss_depth": torch.tensor(1.0)})
        try:
            check_finite({"loss_depth": torch.tensor(1.0), "loss_normals": torch.tensor([1.0, float("nan")][rank])})
        except NonFiniteLoss as error:
            return str(error)
        return "went on"

    well, ill = on_two(work)
    assert "loss of normals (nan)" in ill and "loss of another process" in well


def test_every_process_complains_and_says_which_it_is(on_two, capfd):
    def work(rank):
        def fail():
            if rank == 1:
                raise ValueError("the disk of this machine is full")

        return run_tool(fail)

    assert on_two(work) == [0, 2]
    assert capfd.readouterr().err == "rank 1: error: the disk of this machine is full\n"
