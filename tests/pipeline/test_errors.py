"""Everything a user can get wrong: exit code 2, one message that names the value, what is allowed and the remedy."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.pipeline_tiny import tool, write_config, write_nyuv2
from safetensors.torch import load_file, save_file

from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model, state_hash
from symerge_dense.models.weight_files import KEY
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.train import train

NYUV2 = """
from symerge_dense.datasets.nyuv2.mtan import NYUv2
data = dict(train=dict(type=NYUv2, root=ROOT, split="train"), unlabelled=dict(type=NYUv2, root=ROOT, split="val"),
            test=dict(type=NYUv2, root=ROOT, split="val"))
base = dict(train=dict(tasks=dict(edges=dict(type=Edges)), recipe=dict(epochs=1, batch_size=2)))
experts = dict(folder=EXPERTS, recipe=dict(epochs=1, batch_size=2))
adaptation = dict(rounds=1, batch_size=2, recalibration_images=2)
"""


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished run, its config and its experts; tests leave them alone."""
    folder = tmp_path_factory.mktemp("home")
    path = write_config(folder)
    train(load_config(path, ["adaptation.rounds=1"]), work_dir=str(folder / "run"))
    found = {file.name.split("-")[0]: file for file in (folder / "experts").glob("*.safetensors")}
    return SimpleNamespace(folder=folder, config=path, run=folder / "run", files=found)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """``refused(tool, *arguments)`` is the message of a tool that must refuse; it may write nothing where it stands."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments, writes=()):
        before = listing(tmp_path)
        capsys.readouterr()
        assert tool(name, *arguments) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("error: ") == 1, text
        assert "Traceback" not in text and len(text.splitlines()) <= 25, text
        new = [path for path in listing(tmp_path) if path not in before]
        assert [path for path in new if not path.startswith(("nothing", *writes))] == []
        return text

    return run


# -- data --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def nyuv2(tmp_path):
    """A config over an NYUv2 folder that is right until a test spoils it."""
    root = write_nyuv2(tmp_path / "nyuv2", {"train": 4, "val": 2})  # an epoch of two whole batches sees every file
    more = NYUV2.replace("ROOT", repr(str(root))).replace("EXPERTS", repr(str(tmp_path / "experts")))
    return SimpleNamespace(root=root, config=write_config(tmp_path, more=more))


def test_the_data_set_of_these_tests_is_sound(nyuv2, tmp_path):
    assert tool("train.py", nyuv2.config, "--work-dir", tmp_path / "run") == 0


def test_missing_data_say_what_to_fetch_and_where_to_put_it(nyuv2, refused, tmp_path):
    shutil.rmtree(nyuv2.root)
    text = refused("train.py", nyuv2.config, "--work-dir", "run")
    assert str(nyuv2.root) in text and "https://" in text and "train/image/0.npy" in text
    write_nyuv2(nyuv2.root)  # what was fetched is used by the same command
    assert tool("train.py", nyuv2.config, "--work-dir", "run") == 0


def save(path, array, **options):
    np.save(path, array, **options)


SPOILED = {
    "missing": ("train/depth/1.npy", lambda path: path.unlink(), ["missing", "0.npy to 3.npy"]),
    "truncated": ("train/label/1.npy", lambda path: path.write_bytes(path.read_bytes()[:200]), ["not a readable .npy"]),
    "empty": ("train/label/1.npy", lambda path: path.write_bytes(b""), ["not a readable .npy"]),
    "shape": ("train/normal/1.npy", lambda path: save(path, np.zeros((3, 16, 24))), ["(3, 16, 24)", "(16, 24, 3)"]),
    "pickled": ("train/depth/1.npy", lambda path: save(path, np.array([{}]), allow_pickle=True), ["not a readable"]),
    "nan": ("train/image/1.npy", lambda path: save(path, np.full((16, 24, 3), np.nan)), ["NaN"]),
    "range": ("train/image/1.npy", lambda path: save(path, np.full((16, 24, 3), 200.0)), ["200.0", "0..1"]),
    "labels": ("train/label/1.npy", lambda path: save(path, np.full((16, 24), 13.0)), ["[13.0]", "-1..12", "255"]),
    "millimetres": (
        "train/depth/1.npy",
        lambda path: save(path, (np.load(path) * 1000).astype(np.uint16)),
        ["m in the median, above 100 m", "scale=1e-3", "max_median"],
    ),
    "float millimetres": ("val/depth/1.npy", lambda path: save(path, np.load(path) * 1000), ["above 100 m"]),
    "no unit vectors": ("train/normal/1.npy", lambda path: save(path, np.load(path) * 127), ["vectors of length 1"]),
    "test labels": ("val/label/0.npy", lambda path: save(path, np.full((16, 24), 40.0)), ["[40.0]", "-1..12"]),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_data_file_is_named(kind, nyuv2, refused):
    name, spoil, wanted = SPOILED[kind]
    spoil(nyuv2.root / name)
    text = refused("train.py", nyuv2.config, "--work-dir", "run")  # not even the base was trained
    assert str(nyuv2.root / name) in text
    assert all(part in text for part in wanted), text
    assert re.search(r"fetch|correct|rescale|expected|multiply|divide", text)


def test_a_data_worker_ends_like_the_process_itself(nyuv2, refused):
    write_nyuv2(nyuv2.root, {"train": 8, "val": 2})
    SPOILED["labels"][1](nyuv2.root / "train/label/2.npy")  # none of the few that are tried in the process itself
    text = refused("train.py", nyuv2.config, "--work-dir", "run", "--cfg-options", "adaptation.num_workers=1")
    assert text.startswith(f"error: {nyuv2.root / 'train/label/2.npy'}: label values [13.0]")


def test_weights_that_cannot_be_downloaded(refused, tmp_path):
    path = write_config(tmp_path, more="base = dict(pretrained=True)\nbackbone = dict(name='resnet10t')\n")
    text = refused("train.py", path, "--work-dir", "run", writes=("rooms",))  # conftest.py switches the hub off
    assert "'resnet10t' could not be downloaded" in text and "checkpoint=PATH" in text


# -- expert checkpoints ------------------------------------------------------------------------------------------------
def truncated(home, path):
    path.write_bytes(home.files["depth"].read_bytes()[:5000])


def poisoned(home, path):
    state = load_file(home.files["depth"])
    state["backbone.body.conv1.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, path, {KEY: json.dumps(read_metadata(home.files["depth"]) | {"hash": state_hash(state)})})


def other_base(home, path):
    model, about = load_model(home.files["depth"])
    save_model(path, model, {"base_hash": "f" * 64, "training": about["training"]})


def incomplete(home, path):
    state, header = load_file(home.files["depth"]), {KEY: json.dumps(read_metadata(home.files["depth"]))}
    kept = {name: value for name, value in state.items() if "layer4" not in name and "norm" not in name}
    save_file(kept, path, header)


def foreign(home, path):
    save_file({"weight": torch.zeros(3)}, path)


BROKEN = {
    "missing": (lambda home, path: None, ["there is no file", "holds"]),
    "truncated": (truncated, ["truncated", "copy it again"]),
    "poisoned": (poisoned, ["1: backbone.body.conv1.0.weight", "not finite", "earlier"]),
    "other base": (other_base, ["do not share their base", "depth: ffffffffffff", "experts.other_base=True"]),
    "incomplete": (incomplete, ["does not match", "missing", "layer4", "more", "train or export it again"]),
    "foreign": (foreign, ["not a model file of symerge_dense"]),
    "wrong task": (lambda home, path: shutil.copy(home.files["normals"], path), ["serves normals, not 'depth'"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_expert_file_is_named(kind, home, refused, tmp_path):
    make, wanted = BROKEN[kind]
    path = tmp_path / "mine.safetensors"
    make(home, path)
    text = refused("train.py", home.config, "--work-dir", "run", "--cfg-options", f"experts.checkpoints.depth={path}")
    assert all(part in text for part in wanted), text
    assert str(path) in text or kind == "other base"


def test_tensors_that_do_not_match_are_counted_and_the_first_ten_shown(home, refused, tmp_path):
    incomplete(home, tmp_path / "mine.safetensors")
    text = refused("test.py", home.config, tmp_path / "mine.safetensors")
    count, names, more = re.search(r"backbone: matched \d+, missing (\d+): (.*) and (\d+) more", text).groups()
    assert len(names.split(", ")) == 10 and int(count) == 10 + int(more)


@pytest.mark.parametrize("tool_name", ["train.py", "test.py"])
def test_a_pickled_expert_is_not_read(tool_name, home, refused, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"state_dict": Bomb()}, tmp_path / "mine.pth")
    path = tmp_path / "mine.pth"
    arguments = (
        (path,)
        if tool_name == "test.py"
        else ("--work-dir", "run", "--cfg-options", f"experts.checkpoints.depth={path}")
    )
    text = refused(tool_name, home.config, *arguments)
    assert str(path) in text and "safetensors" in text
    text = refused("train.py", home.config, "--work-dir", "run", "--cfg-options", f"base.checkpoint={path}")
    assert str(path) in text and "pickled" in text and not (tmp_path / "exploded").exists()


def test_an_expert_of_another_network_shows_the_difference(home, refused, tmp_path):
    assert (
        tool(
            "train.py",
            write_config(tmp_path, rooms=home.folder / "rooms"),
            "--work-dir",
            tmp_path / "wide",
            "--cfg-options",
            "backbone.channels=[8, 16, 24, 40]",
            "adaptation.rounds=1",
        )
        == 0
    )
    other = next((tmp_path / "experts").glob("depth-*.safetensors"))
    text = refused(
        "train.py",
        home.config,
        "--work-dir",
        "run",
        "--cfg-options",
        "experts.other_base=True",
        f"experts.checkpoints.depth={other}",
    )
    assert "differ in backbone" in text and "40" in text and "one architecture" in text


def test_experts_that_may_not_be_trained_are_named(refused, tmp_path):
    text = refused("train.py", write_config(tmp_path), "--work-dir", "run", "--no-train-experts", writes=("rooms",))
    assert "shared base is missing" in text and "base-" in text and "leave out --no-train-experts" in text


def test_a_checkpoint_and_a_split_that_are_not_there(home, refused, tmp_path):
    assert "there is no file nowhere.safetensors" in refused("test.py", home.config, "nowhere.safetensors")
    text = refused("test.py", home.config, home.files["depth"], "--split", "tset")
    assert "'tset'" in text and "'test'" in text and "unlabelled" in text


# -- names and values in a config --------------------------------------------------------------------------------------
MISTYPED = {
    "adaptaton.rounds=1": "Did you mean 'adaptation'",
    "adaptation.round=1": "Did you mean 'rounds'",
    "adaptation.rounds=0": "rounds=0 must be positive",
    "adaptation.rounds=many": "adaptation.rounds='many' must be a value of type int",
    "adaptation.amp=1": "adaptation.amp=1 must be a value of type bool",
    "adaptation.task_weights.dept=2": "Did you mean 'depth'",
    "adaptation.augment.flip=maybe": "adaptation.augment: flip='maybe', color=0.0: both must be numbers in",
    "adaptation.augment.zoom=abc": "zoom='abc': give one or more scales >= 1",
    "adaptation.augment={'flp': 0.5}": "adaptation.augment: unknown key 'flp'. Did you mean 'flip'",
    "adaptation.preset=papr": "Did you mean 'paper'",
    "adaptation.layer=finl": "Did you mean 'final'",
    "adaptation.schedule=per-task": "Did you mean 'per_task'",
    "adaptation.clamp=(0.5,1.0)": "initial=0.3 lies outside clamp",
    "adaptation=5": "adaptation is 5; it must be a dict",
    "tasks.depth.type=dept": "Did you mean 'depth'",
    "tasks.depht.type=depth": "goes by its own name",
    "tasks.segmentation.clases=3": "Did you mean 'classes'",
    "heads.norm.width=3": "Did you mean 'normals'",
    "backbone.name=resnet10tt": "Did you mean",
    "backbone.output_strid=8": "output_strid",
    "head.widht=3": "Did you mean 'width'",
    "head.type=MultScale": "Did you mean 'MultiScale'",
    "preprocessing.men=(1,2,3)": "Did you mean 'mean'",
    "preprocessing.std=(0,0,0)": "std > 0",
    "data.train.coutn=3": "Did you mean 'count'",
    "data.train.split=trian": "'trian'",
    "data.train.augment.flp=0.5": "flp",
    "data.train.type=Roomz": "data.train.type: unknown data set 'Roomz'. Did you mean 'Rooms'",
    "data.tset.count=3": "data.tset has type None",
    "base.trian=1": "Did you mean 'train'",
    "base.train.recipe.epoch=3": "Did you mean 'epochs'",
    "base.train.recipe.epochs=0": "epochs=0",
    "base.train.tasks.depht.type=depth": "base.train.tasks.depht",
    "experts.recipe.lr=fast": "lr='fast' must be a value of type float",
    "experts.recipe=3": "must be dicts of recipe options",
    "experts.recipe.optimizer=Adamw": "'AdamW'",
    "experts.recipes.dept.lr=1": "Did you mean 'depth'",
    "experts.checkpoints.dept=x": "Did you mean 'depth'",
    "evaluation.batchsize=3": "Did you mean 'batch_size'",
    "evaluation.panels=0": "panels=0",
    "baselines.scales=0.3": "baselines.scales=0.3 must be a list",
    "baselines.scales=[]": "baselines.scales=[] must be a list",
    "baselines.scales=[true]": "baselines.scales=[True] must be a list of numbers",
    "evaluation.panels=true": "panels=True must be a whole number",
    "seed=one": "seed='one'",
    "rounds": "write key.subkey=value",
}


@pytest.mark.parametrize("override", MISTYPED)
def test_a_mistyped_option_is_named_with_its_neighbours(override, refused, tmp_path):
    path = write_config(tmp_path)
    text = refused("train.py", path, "--work-dir", "run", "--cfg-options", override, writes=("rooms",))
    assert MISTYPED[override] in text, text


FILES = {
    "syntax": ("tasks = dict(\n", "SyntaxError"),
    "name": ("tasks = dict(depth=Dept)\n", "Dept"),
    "import": ("from symerge_dense.nowhere import Nothing\ntasks = dict(type=Nothing)\n", "nowhere"),
    "arithmetic": ("from symerge_dense.tasks.depth import Depth\nseed = 1 // 0\n", "ZeroDivisionError"),
    "empty": ("", "has no 'tasks'"),
    "no data": ("tasks = dict(depth=dict(type='depth'))\n", "has no 'data'"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_config_file_that_does_not_read(kind, refused, tmp_path):
    text, wanted = FILES[kind]
    (tmp_path / "mine.py").write_text(text)
    assert "mine.py" in (message := refused("train.py", "mine.py")) and wanted in message


def test_a_config_that_is_not_there_and_one_that_is_no_python(refused, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "rooms_symerge.py").write_text("")
    assert "Did you mean 'configs/rooms_symerge.py'" in refused("train.py", "configs/room_symerge.py")
    assert "unknown config file 'configs'" in refused("benchmark.py", "step", "configs")
    (tmp_path / "mine.txt").write_text("tasks")
    assert "mine.txt cannot be read" in refused("train.py", "mine.txt")


@pytest.mark.parametrize("section", ["tasks", "data", "backbone", "head", "base", "experts"])
def test_a_config_that_lacks_a_section(section, refused, tmp_path):
    path = write_config(tmp_path, more=f"del {section}\n")
    assert f"has no '{section}'" in refused("train.py", path, "--work-dir", "run")


@pytest.mark.parametrize(
    "more, wanted",
    [
        ("del data['unlabelled']", "data has no 'unlabelled'"),
        ("base = dict()", "base does not say where"),
        ("tasks = dict()", "at least one task"),
        ("del experts['recipe']", "neither a recipe nor a checkpoint for segmentation, depth, normals"),
        ("del base['train']['recipe']", "base.train has no 'recipe'"),
        ("del backbone['name']", "backbone has no 'name'"),
    ],
)
def test_a_config_that_lacks_a_part(more, wanted, refused, tmp_path):
    text = refused("train.py", write_config(tmp_path, more=f"{more}\n"), "--work-dir", "run", writes=("rooms",))
    assert wanted in text


# -- runs --------------------------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_finite_stops_and_the_last_good_state_is_kept(home, refused, tmp_path):
    text = refused(
        "train.py",
        home.config,
        "--work-dir",
        "run",
        "--cfg-options",
        "adaptation.clamp=None",
        "adaptation.coefficient_lr=1e36",
        "adaptation.save_every=1",
        writes=("run",),
    )
    assert re.search(r"the loss of .* is not finite", text) and "learning rate" in text
    kept = torch.load(checkpoints(tmp_path / "run" / "checkpoints")[0], weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert (tmp_path / "run" / "run.json").exists() and not (tmp_path / "run" / "results.json").exists()


def test_an_expert_whose_loss_is_not_finite_is_not_kept(home, refused, tmp_path):
    path = write_config(tmp_path, rooms=home.folder / "rooms")
    text = refused(
        "train.py",
        path,
        "--work-dir",
        "run",
        "--cfg-options",
        "base.train.recipe.lr=1e30",
        "base.train.recipe.epochs=9",
        "base.train.recipe.schedule=constant",
        writes=("experts",),
    )
    assert re.search(r"the loss of .* is not finite", text)
    assert not list((tmp_path / "experts").glob("*.safetensors"))


def test_a_work_dir_that_cannot_be_written(home, refused, tmp_path):
    (tmp_path / "file").write_text("")
    text = refused("train.py", home.config, "--work-dir", "file/run")
    assert "file/run cannot be written" in text and "choose another --work-dir" in text


@pytest.mark.parametrize("key", ["data.test.root", "experts.folder"])
def test_other_folders_that_cannot_be_written(key, home, refused, tmp_path):
    (tmp_path / "file").write_text("")
    text = refused("train.py", home.config, "--work-dir", "run", "--cfg-options", f"{key}=file/here", writes=("run",))
    assert "file/here" in text and "Not a directory" in text and "choose another place" in text


def test_a_second_run_does_not_overwrite_the_first(home, refused):
    before = {path: path.stat().st_mtime_ns for path in home.run.rglob("*")}
    text = refused("train.py", home.config, "--work-dir", home.run)
    assert f"{home.run} already holds a run" in text and "--resume" in text
    assert before == {path: path.stat().st_mtime_ns for path in home.run.rglob("*")}


def test_there_is_nothing_to_resume(home, refused):
    assert "no run under work_dirs/tiny" in refused("train.py", home.config, "--resume")
    assert "run holds no run" in refused("train.py", home.config, "--work-dir", "run", "--resume")


def test_a_run_is_resumed_with_the_config_that_it_began_with(home, refused, tmp_path):
    text = refused("train.py", home.config, "--work-dir", home.run, "--resume", "--seed", 5)  # began with rounds=1
    assert "changed: adaptation.rounds (1, now 4), seed (0, now 5). " in text and "Use the same config" in text
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json is damaged" in refused("train.py", home.config, "--work-dir", "run", "--resume")


def test_a_damaged_frame_is_made_anew(tmp_path, capsys):
    path = write_config(tmp_path)
    assert tool("train.py", path, "--work-dir", tmp_path / "run", "--cfg-options", "adaptation.rounds=1") == 0
    depth = next((tmp_path / "rooms").glob("*/test-6/depth.npy"))
    before = depth.read_bytes()
    depth.write_bytes(before[:300])
    capsys.readouterr()
    assert tool("train.py", path, "--work-dir", tmp_path / "again", "--cfg-options", "adaptation.rounds=1") == 0
    assert f"{depth}: damaged (" in capsys.readouterr().out and depth.read_bytes() == before
