"""SyMerge from an ordinary config, run by MMEngine's own Runner: the files of docs/mmengine.md exactly as printed."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import tiny
from builders.pipeline_tiny import ENV, ROOT
from builders.prepared_python import Python
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import CheckpointLoader, Runner
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.hook import SyMergeHook
from symerge_dense.adaptation.symerge_model import SyMergeModel, load_expert
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.models.checkpoint import load_model, save_model, state_hash
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel

PAGE = (ROOT / "docs" / "mmengine.md").read_text("utf-8")
FILES = dict(re.findall(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
(SCRIPT,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if ".train()" in code)
TASKS = ["segmentation", "depth", "normals"]
STEPS, IMAGES = 20, 24


def write_experts(folder):
    """A base, its names beginning with 'backbone.', and an expert near it for each task."""
    folder.mkdir()
    base = tiny.backbone()
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, folder / "base.safetensors")
    for seed, task in enumerate(TASKS, start=1):
        torch.manual_seed(seed)
        own = tiny.backbone()
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        head = {"type": MultiScale, "width": 8}
        expert = MultiTaskModel(own, {task: head}, {task: {"type": task}}, **tiny.PREPROCESSING).eval()
        save_model(folder / f"{task}.safetensors", expert, {"base_hash": state_hash(base.state_dict())})


def rows_of(work_dir):
    """The rows of MMEngine's scalars.json."""
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The page's files in a folder with experts, and what its script leaves, run by a fresh interpreter."""
    folder = tmp_path_factory.mktemp("home")
    write_experts(folder / "experts")
    assert set(FILES) == {"plain.py", "lazy.py"}
    for name, code in FILES.items():
        (folder / name).write_text(code)
    (folder / "script.py").write_text(SCRIPT)
    printed = Python("script.py", folder=folder, env=ENV).printed()
    merged, _ = load_model(folder / "merged.safetensors")
    return SimpleNamespace(folder=folder, merged=merged, run=folder / "work_dirs" / "plain", printed=printed)


@pytest.fixture
def there(home, monkeypatch):
    monkeypatch.chdir(home.folder)
    return home


def config(name="plain.py", work_dir="run", **changes):
    """A config of the page, quiet, in a work_dir of its own; MMEngine keeps loggers and visualizers by experiment."""
    read = Config.fromfile(name)
    own = {"work_dir": f"work_dirs/{work_dir}", "experiment_name": work_dir, "log_level": "ERROR"}
    read.merge_from_dict({**own, **changes})
    return read


# -- the classic style ------------------------------------------------------------------------------------------------
def test_the_model_ends_merged(home):
    base = tiny.backbone().state_dict()
    merged = home.merged.backbone.state_dict()
    experts = [load_model(home.folder / "experts" / f"{task}.safetensors")[0] for task in TASKS]
    assert list(home.merged.tasks) == TASKS
    for name, _ in home.merged.backbone.named_parameters():
        vectors = torch.stack([expert.backbone.state_dict()[name] - base[name] for expert in experts])
        moved = (merged[name] - base[name]).flatten(1) if base[name].ndim > 1 else (merged[name] - base[name])[:, None]
        of_channel = vectors.reshape(len(TASKS), *moved.shape).permute(1, 2, 0)  # (channels, weights of one, tasks)
        mixed = of_channel @ torch.linalg.lstsq(of_channel, moved[..., None]).solution
        torch.testing.assert_close(mixed[..., 0], moved, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: name + text)
        assert moved.abs().max() > 0, name
    assert any(not torch.equal(value, base[name]) for name, value in merged.items() if "running_mean" in name)


def test_the_losses_are_finite_and_fall_on_record_in_every_iteration(home):
    rows = read_history(home.run / "history.jsonl")
    assert [row["iteration"] for row in rows] == list(range(STEPS))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    total = [sum(row[f"loss_{task}"] for task in TASKS) for row in rows]
    assert np.mean(total[-5:]) < np.mean(total[:5])


def test_experts_were_asked_once_and_their_labels_kept(home):
    for task in TASKS:
        (path,) = (home.run / "labels").rglob(f"{task}.npy")  # in a folder of its own where there are several views
        assert len(np.load(path)) == IMAGES
        assert home.printed.count(f"labels of expert {task}") == 1


def test_scalars_json_has_losses_and_the_metrics_of_the_delivered_model(home):
    rows = rows_of(home.run)
    assert [row["step"] for row in rows if "loss" in row] == [5, 10, 15, 20]
    watched = [row for row in rows if "depth/abs" in row]
    assert [row["step"] for row in watched] == [10, 20]
    tasks = {task: {"type": task} for task in TASKS}
    data = Rooms("test", home.folder / "data" / "rooms", count=IMAGES, size=(48, 64), tasks=tasks)
    scores = evaluate(home.merged, DataLoader(data, 4, collate_fn=default_collate), "test")
    found = {f"{task}/{name}": metric.value for task, metrics in scores.items() for name, metric in metrics.items()}
    assert {name: watched[-1][name] for name in found} == pytest.approx(found, rel=1e-5)
    assert not [name for row in watched for name in row if "loss" in name]


# -- the same by other ways -------------------------------------------------------------------------------------------
def test_the_lazy_style_ends_the_same(there):
    read = config("lazy.py", work_dir="lazy")
    assert isinstance(read.model["type"], type) and read.filename.endswith("lazy.py")
    student = Runner.from_cfg(read).train()
    assert same(student.model.state_dict(), there.merged.state_dict())
    assert rows_of(there.folder / "work_dirs" / "lazy")[-1]["depth/abs"] == rows_of(there.run)[-1]["depth/abs"]


def test_adapt_ends_the_same(there):
    read = config()
    experts = {task: load_expert(path, task)[0] for task, path in read.experts.items()}
    model = {**read.model, "options": {**read.model.options, "rounds": STEPS}}
    student = adapt(model, experts, read.train_dataloader.dataset, there.folder / "adapted", seed=0)
    assert same(student.model.state_dict(), there.merged.state_dict())
    assert read_history(there.folder / "adapted" / "history.jsonl") == read_history(there.run / "history.jsonl")


def test_mmengines_own_checkpoint_is_resumed_and_ends_the_same(there):
    kept = CheckpointLoader.load_checkpoint(str(there.run / "iter_10.pth"))["state_dict"]
    frozen = {f"model.backbone.{name}" for name, _ in there.merged.backbone.named_parameters()}
    assert "merge.coefficients" in kept and not frozen & set(kept)
    resumed = config(work_dir="resumed", resume=True, load_from=str(there.run / "iter_10.pth"))
    student = Runner.from_cfg(resumed).train()
    assert same(student.model.state_dict(), there.merged.state_dict())
    assert [row["step"] for row in rows_of(there.folder / "work_dirs" / "resumed") if "loss" in row] == [15, 20]


def test_the_merged_model_is_tested_by_the_same_runner(there):
    read = config(work_dir="tested", train_cfg={"max_iters": 3, "val_interval": 3})
    read.update(test_dataloader=read.val_dataloader, test_evaluator=read.val_evaluator, test_cfg={})
    runner = Runner.from_cfg(read)
    runner.train()
    found = runner.test()
    assert {name.split("/")[0] for name in found} == set(TASKS)
    watched = rows_of(there.folder / "work_dirs" / "tested")[-1]
    assert {name: watched[name] for name in found} == pytest.approx(found, rel=1e-5)


# -- what the page says of traps --------------------------------------------------------------------------------------
def test_only_what_learns_is_optimised_each_at_its_rate(there):
    runner = Runner.from_cfg(config(work_dir="groups"))
    groups = runner.build_optim_wrapper(runner.optim_wrapper).optimizer.param_groups
    student = runner.model
    assert [group["lr"] for group in groups] == [student.options.coefficient_lr, student.options.layer_lr]
    optimised = {id(parameter) for group in groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in student.parameters() if parameter.requires_grad}


def test_every_parameter_at_one_rate_is_what_mmengine_does_by_default(there):
    read = config(work_dir="default_groups")
    read.optim_wrapper.pop("constructor")
    runner = Runner.from_cfg(read)
    (group,) = runner.build_optim_wrapper(runner.optim_wrapper).optimizer.param_groups
    assert len(group["params"]) == len(list(runner.model.parameters()))


@pytest.mark.parametrize("collate", ["pseudo_collate", "default_collate"])
def test_both_collations_learn_and_measure_the_same(there, collate):
    read = config(work_dir=collate, train_cfg={"max_iters": 5, "val_interval": 5})
    read.param_scheduler[-1]["T_max"] = STEPS - read.rise
    for loader in (read.train_dataloader, read.val_dataloader):
        loader.collate_fn = {"type": collate}
    Runner.from_cfg(read).train()
    assert read_history(Path(read.work_dir) / "history.jsonl") == read_history(there.run / "history.jsonl")[:5]
    assert math.isfinite(rows_of(Path(read.work_dir))[-1]["normals/mean"])


def test_sharp_steps_need_the_constructor_that_makes_them(there):
    read = config(work_dir="blunt")
    read.model.options.sharpness = 0.1
    read.optim_wrapper.pop("constructor")
    with pytest.raises(ValueError, match=r"OptimWrapper takes plain steps; set optim_wrapper=dict\(constructor="):
        Runner.from_cfg(read).train()


def test_a_bare_index_would_augment_an_image_in_the_same_way_for_ever(there):
    runner = Runner.from_cfg(config(work_dir="sampler"))
    for sampler, draws in (("PoolSampler", {0, 1}), ("InfiniteSampler", {0})):
        loader = config().train_dataloader
        loader.sampler = {"type": sampler}
        keys = iter(runner.build_dataloader(loader, seed=0).sampler)
        assert {next(keys) // IMAGES for _ in range(2 * IMAGES)} == draws


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"initial": math.nan}, "adaptation.initial=nan must be a finite number"),
        ({"batch_size": "4"}, "adaptation.batch_size='4' must be a value of type int"),
        ({"task_weights": {"dept": 2.0}}, "adaptation.task_weights: unknown task 'dept'. Did you mean 'depth'"),
        ({"augment": {"flip": 2}}, "adaptation.augment: flip=2"),
    ],
)
def test_wrong_options_are_refused_as_in_a_config_of_the_main_job(there, options, told):
    read = config(work_dir="mistyped")
    read.model.options.update(options)
    with pytest.raises(ValueError, match=told):
        Runner.from_cfg(read)


def test_labelled_training_data_are_refused_with_the_remedy(there):
    read = config(work_dir="labelled")
    read.train_dataloader.dataset = read.val_dataloader.dataset
    with pytest.raises(ValueError, match=r"learns from unlabelled images, not from Rooms.*type='Unlabelled'"):
        Runner.from_cfg(read).train()


def test_a_run_without_the_hook_says_what_is_missing(there):
    read = config(work_dir="hookless", custom_hooks=[])
    with pytest.raises(ValueError, match=r"add dict\(type='SyMergeHook'\) to custom_hooks"):
        Runner.from_cfg(read).train()


# -- the page itself --------------------------------------------------------------------------------------------------
def test_every_name_of_the_registries_table_is_registered():
    from symerge_dense import registry

    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([A-Z_]+)`)? *\| (.*) \|$", PAGE, re.MULTILINE)
    named = {name: getattr(registry, name) for name, _, _ in rows}
    public = {key: value for key, value in vars(registry).items() if isinstance(value, registry.Registry)}
    assert named == {key: value for key, value in public.items() if not key.startswith("_")}
    for name, parent, examples in rows:
        above = getattr(registry.mmengine, parent) if parent else None
        assert named[name].parent is (registry.MODELS if name == "HEADS" else above), name
        for example in re.findall(r"`(\w+)`", examples):
            assert example in named[name], (name, example)


def test_every_key_that_passes_through_is_in_the_table_and_no_other():
    from symerge_dense.pipeline.config import RUNNER_KEYS

    section = PAGE.split("\n## What a config of the main job")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(RUNNER_KEYS)


def test_every_tool_that_the_page_names_exists():
    named = set(re.findall(r"tools/\w+\.(?:sh|py)", PAGE))
    assert len(named) >= 5 and all((ROOT / name).is_file() for name in named)


def test_a_checkpoint_is_measured_without_training_and_the_merged_model_is_written(there):
    config = Config.fromfile("plain.py")
    hook = {"type": "SyMergeHook", "merged": "merged.safetensors"}
    config.work_dir, config.custom_hooks = "work_dirs/written", [hook]
    trained = Runner.from_cfg(config).train()
    written, _ = load_model("work_dirs/written/merged.safetensors")
    assert all(torch.equal(value, trained.model.state_dict()[name]) for name, value in written.state_dict().items())
    found = sorted(Path("work_dirs/written").glob("iter_*.pth"))[-1]
    config.load_from, config.work_dir = str(found), "work_dirs/again"
    alone = Runner.from_cfg(config)
    metrics = alone.val()
    assert metrics and all(math.isfinite(value) for value in metrics.values())
    again = Runner.from_cfg(config).val()
    assert again == metrics


def test_experts_of_another_base_are_refused_with_the_remedy(there):
    experts = {task: f"experts/{task}.safetensors" for task in TASKS}
    with pytest.raises(ValueError, match=r"do not share their base weights.*other_base=True"):
        SyMergeModel({"random_init": True}, experts)
    assert SyMergeModel({"random_init": True}, experts, other_base=True).model.tasks.keys() == set(TASKS)
    with pytest.raises(ValueError, match="give one expert for every task"):
        SyMergeModel("experts/base.safetensors", {})


def test_the_order_of_the_tasks_outlives_a_file_that_sorts_them(there):
    experts = {task: f"experts/{task}.safetensors" for task in sorted(TASKS)}
    assert list(SyMergeModel("experts/base.safetensors", experts, tasks=TASKS).model.tasks) == TASKS


def test_a_merged_file_of_another_kind_is_refused_before_the_work():
    with pytest.raises(ValueError, match="safetensors"):
        SyMergeHook(merged="merged.pth")
