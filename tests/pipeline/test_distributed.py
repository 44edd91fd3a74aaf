"""The main job and its tools on two processes: the record of one process, every file once, every complaint heard."""

import multiprocessing
import re
from types import SimpleNamespace

import pytest
import torch
from builders.pipeline_tiny import ENV, ROOT, TASKS, write_config
from builders.prepared_python import Python, torchrun_environments

from symerge_dense.adaptation.history import read_history
from symerge_dense.commands.cli import run_tool
from symerge_dense.models.checkpoint import load_model, read_metadata
from symerge_dense.models.multi_task import NonFiniteLoss, check_finite
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data import labels_fingerprint
from symerge_dense.pipeline.train import train
from symerge_dense.report.agreement import read_record

RUNNING = "adaptation['statistics'] = 'running'\n"


def values(row):
    return {(task, name): metric["value"] for task, metrics in row["tasks"].items() for name, metric in metrics.items()}


def names(folder):
    """Every file and folder under ``folder``; in names made of a date and time (MMEngine's log), # for the digits."""
    return sorted(re.sub(r"\d{8}_\d{6}", "#", path.relative_to(folder).as_posix()) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same job by one process, which trains base and experts, and by two, which are given them."""
    folder = tmp_path_factory.mktemp("distributed")
    train(load_config(write_config(folder, more=RUNNING)), work_dir=str(folder / "one"))
    stock = {path.name.split("-")[0]: str(path) for path in (folder / "experts").glob("*.safetensors")}
    base = stock.pop("base")
    config = write_config(
        folder, "given.py", RUNNING + f"base = dict(checkpoint={base!r})\nexperts = dict(checkpoints={stock!r})\n"
    )
    before = set(folder.iterdir())
    words = [ROOT / "tools" / "train.py", config, "--launcher", "pytorch", "--work-dir", folder / "two"]
    ranks = [Python(*words, folder=folder, env=ENV | given) for given in torchrun_environments(2)]
    printed = "".join(rank.printed() for rank in ranks)
    return SimpleNamespace(
        folder=folder,
        one=folder / "one",
        two=folder / "two",
        printed=printed,
        new={path.name for path in set(folder.iterdir()) - before},
    )


@pytest.mark.parametrize("row", ["experts", "average", "task_arithmetic", "initial"])
def test_what_is_not_learned_scores_the_same(runs, row):
    one, two = (values(read_record(run / "results.json")[row]) for run in (runs.one, runs.two))
    assert set(one) == set(two) and {task for task, _ in one} == set(TASKS)
    assert two == pytest.approx(one, rel=1e-6, abs=1e-6)


def test_what_is_learned_differs_by_rounding_only(runs):
    one, two = (read_record(run / "results.json") for run in (runs.one, runs.two))
    # gradients are averaged over processes: sums in another order; a pixel at a tie may change its class
    assert values(two["merged"]) == pytest.approx(values(one["merged"]), rel=1e-4, abs=0.02)
    for name, coefficients in one["coefficients"].items():
        assert two["coefficients"][name] == pytest.approx(coefficients, abs=1e-5), name
    assert one["coefficients"] != {name: [0.3] * 3 for name in one["coefficients"]}
    first, second = (read_history(run / "history.jsonl") for run in (runs.one, runs.two))
    assert [row["iteration"] for row in second] == [row["iteration"] for row in first] == [0, 1, 2, 3]
    for task in TASKS:  # a process reports the loss of its own half of the batch
        assert second[0][f"loss_{task}"] == pytest.approx(first[0][f"loss_{task}"], rel=0.5)


def test_the_file_is_the_model_of_the_record(runs):
    one, two = (load_model(run / "merged.safetensors")[0].state_dict() for run in (runs.one, runs.two))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


def test_every_file_is_written_once_and_nothing_is_left_over(runs):
    assert names(runs.two) == names(runs.one)
    assert runs.new == {"two"}  # nothing outside of the run's folder
    assert not [path for path in runs.two.rglob("*") if path.suffix in (".tmp", ".part") or path.name.startswith(".")]
    for heading in ("Base and experts", "peak"):
        assert runs.printed.count(heading) == 1, heading


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
