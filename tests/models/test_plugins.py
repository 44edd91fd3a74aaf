"""Tasks and heads of another package: in model files by name, found by an import or an entry point, never by a file."""

import json
import os
import re
import sys
from types import SimpleNamespace

import pytest
from builders import tiny
from builders.pipeline_tiny import ENV, ROOT
from builders.prepared_python import Python
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from symerge_dense import registry
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.file_merge.inputs import open_inputs
from symerge_dense.registry import TASKS, import_plugins
from symerge_dense.tasks.depth import Depth

LAB = '''
"""A task, a head and a data set, in a package that knows symerge_dense; it is not known there."""

import numpy as np
from torch import nn

from symerge_dense.datasets.base import DenseDataset
from symerge_dense.registry import DATASETS, HEADS, TASKS
from symerge_dense.tasks.regression import Regression


@TASKS.register_module()
class Saliency(Regression):
    """Where people look, 0..1."""

    name = "saliency"
    channels = 1


@HEADS.register_module()
class LabHead(nn.Module):
    """No class of symerge_dense."""

    def __init__(self, in_channels, strides, channels, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels[-1], width, 1), nn.ReLU(), nn.Conv2d(width, channels, 1))

    def forward(self, features):
        return self.body(features[-1])


@DATASETS.register_module()
class LabSet(DenseDataset):
    """Says nothing of the size of its images."""

    serves = frozenset({"saliency"})

    def __len__(self):
        return 2

    def image(self, index):
        return np.zeros((32, 48, 3), np.uint8)

    def target(self, index, name):
        return np.zeros((32, 48), np.float32)
'''
SAVE = """
from builders import tiny
from symerge_dense.models.checkpoint import read_metadata, save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import import_plugins

import_plugins(["my_lab.saliency"])
heads = {"depth": {"type": "Linear"}, "saliency": {"type": "LabHead", "width": 4}}
tasks = {"depth": {"type": "depth"}, "saliency": {"type": "saliency"}}
save_model("model.safetensors", MultiTaskModel(tiny.backbone(), heads, tasks))
answer = read_metadata("model.safetensors")["plugins"]
"""
LOAD = """
import sys
from symerge_dense.models.checkpoint import load_model
from symerge_dense.registry import import_plugins

try:
    load_model("model.safetensors")
except ValueError as error:
    answer = [str(error), [name for name in sys.modules if name.startswith("my_lab")]]
import_plugins(["my_lab.saliency"])
answer += [load_model("model.safetensors")[0].spec["heads"]["saliency"]]
"""
CONFIG = """
tasks = dict(saliency=dict(type="saliency"))
data = {split: dict(type="LabSet") for split in ("train", "unlabelled", "test")}
backbone = dict(name="resnet10t", channels=(8, 16, 24, 32), stem_width=8)
head = dict(type="LabHead", width=4)
base = dict(random_init=True)
experts = dict(recipe=dict(epochs=1, batch_size=2))
adaptation = dict(layer="body.0")
"""
INSTALLED = """
from symerge_dense.models.checkpoint import load_model
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.network import check_network
from symerge_dense.pipeline.profiling.estimate import forward_cost, image_size

model, _ = load_model("model.safetensors")
config = load_config("config.py")
check_network(config)
cost = forward_cost(config, config.tasks, image_size(config))
answer = [list(model.tasks), list(image_size(config)), cost.head_parameters["saliency"] * 1e6]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the package ``my_lab`` and a model file that needs it; ``run(program)`` gives its ``answer``."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "__init__.py").touch()
    (folder / "my_lab" / "saliency.py").write_text(LAB)
    (folder / "scripts").mkdir()

    def run(program, *paths):
        script = folder / "scripts" / "script.py"  # Python looks for modules where the script is, not where it runs
        script.write_text(f"{program}\nimport json\nprint('ANSWER', json.dumps(answer))\n")
        path = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *paths]))
        printed = Python(script, folder=folder, env={**ENV, "PYTHONPATH": path}).printed()
        return json.loads(printed.rpartition("ANSWER")[2])

    return SimpleNamespace(folder=folder, run=run, plugins=run(SAVE))


def test_a_model_file_says_which_module_registered_what(lab):
    assert lab.plugins == {"head LabHead": "my_lab.saliency", "task saliency": "my_lab.saliency"}


def test_a_file_that_needs_a_plugin_says_which_and_loads_once_it_is_imported(lab):
    message, imported, spec = lab.run(LOAD)
    assert "model.safetensors describes a network that cannot be built: unknown head 'LabHead'." in message
    assert "It was registered by module my_lab.saliency: import that module first" in message
    assert "--import my_lab.saliency" in message and "custom_imports=dict(imports=['my_lab.saliency'])" in message
    assert imported == [], "nothing is imported because a file says so"
    assert spec == {"type": "LabHead", "width": 4}


def test_the_plugins_of_an_installed_package_are_known_without_an_import(lab):
    site = lab.folder / "site"
    about = site / "my_lab-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[symerge_dense.plugins]\nsaliency = my_lab.saliency\n")
    (site / "my_lab").symlink_to(lab.folder / "my_lab")
    (lab.folder / "config.py").write_text(CONFIG)
    tasks, size, parameters = lab.run(INSTALLED, site)
    assert tasks == ["depth", "saliency"]
    assert size == [32, 48], "the first image of a data set that has no DEFAULT_SIZE"
    assert parameters == pytest.approx(32 * 4 + 4 + 4 + 1)


def test_backbones_of_files_are_merged_without_the_plugins_of_their_heads(file):
    path = file({"head LabHead": "my_lab.saliency"}, head="LabHead")
    inputs = open_inputs(path, {"one": path})
    assert inputs.prefix == "backbone." and {spec.kind for spec in inputs.specs} >= {"bn_stat"}


# -- files that are not trusted ---------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path):
    """``file(plugins, task, head)`` is a model file whose record says that, true or not."""
    path = tmp_path / "model.safetensors"
    save_model(path, MultiTaskModel(tiny.backbone(), {"depth": {"type": "Linear"}}, {"depth": Depth()}))

    def change(plugins=None, task="depth", head="Linear"):
        with safe_open(path, framework="pt") as opened:
            record = json.loads(opened.metadata()["symerge_dense"])
        record["model"]["tasks"]["depth"]["type"], record["model"]["heads"]["depth"]["type"] = task, head
        record |= {} if plugins is None else {"plugins": plugins}
        save_file(load_file(path), path, {"symerge_dense": json.dumps(record)})
        return path

    return change


def test_a_file_without_the_key_loads_and_is_explained_as_before(file):
    assert list(load_model(file())[0].tasks) == ["depth"]
    with pytest.raises(ValueError, match=r"unknown task 'saliency'\..* Known: [a-z_, 0-9]*\.$"):
        load_model(file(task="saliency"))


@pytest.mark.parametrize("plugins", [[], "my_lab", {"task saliency": 3}, {"task saliency": ["os"]}, {"head x": "os"}])
def test_a_record_of_another_form_is_passed_over(file, plugins):
    assert list(load_model(file(plugins))[0].tasks) == ["depth"]
    with pytest.raises(ValueError, match="unknown task 'saliency'") as error:
        load_model(file(plugins, task="saliency"))
    assert "registered by" not in str(error.value)


@pytest.mark.parametrize("module", ["x; rm -rf ~", "x\x1b[2J\n$(id)", "my_lab." * 40 + "x", "-x", "", "\u202eevil"])
def test_a_module_that_a_file_names_is_shown_harmlessly(file, module):
    with pytest.raises(ValueError) as error:
        load_model(file({"task saliency": module}, task="saliency"))
    told = str(error.value).partition("Known: ")[2]
    assert f"The file says that it was registered by {module[:80]!a}, which is no name of a module" in told
    assert "--import" not in told and told.isascii() and told.isprintable() and len(told) < 500


def test_a_class_of_a_script_is_to_be_moved(file):
    with pytest.raises(ValueError, match="registered by the script that wrote the file: move its class to a module"):
        load_model(file({"task saliency": "__main__"}, task="saliency"))


def test_a_long_name_is_shortened(file):
    with pytest.raises(ValueError) as error:
        load_model(file(task="x" * 10**6))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("part", ["task", "head"])
def test_a_file_imports_nothing_by_any_of_its_names(file, part, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("class Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trap.Trap", "trap", "os.system"):
        with pytest.raises(ValueError, match=rf"unknown {part} '{name}'"):
            load_model(file({f"{part} {name}": "trap"}, **{part: name}))
    for wrong in (3, ["trap.Trap"], None):
        with pytest.raises(ValueError, match="registered name"):
            load_model(file(**{part: wrong}))
    assert "trap" not in sys.modules


# -- plug-ins that cannot be imported ---------------------------------------------------------------------------------
@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, which plug-ins are looked for in; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("plain_plugin", "broken_plugin", "whole"):
        sys.modules.pop(name, None)


def test_plugins_are_found_in_the_working_directory(here):
    (here / "plain_plugin.py").write_text("value = 3\n")
    import_plugins(["plain_plugin"])
    assert sys.modules["plain_plugin"].value == 3


@pytest.mark.parametrize("name", ["no_lab", "no_lab.saliency", "whole.absent"])
def test_a_plugin_that_is_nowhere(here, name):
    (here / "whole").mkdir()
    with pytest.raises(ValueError) as error:
        import_plugins([name])
    for words in (f"plug-in {name} cannot be imported", "ModuleNotFoundError", "run from the folder", "PYTHONPATH"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        (
            "from symerge_dense.registry import TASKS\n@TASKS.register_module()\nclass Mine:\n    name = 'depth'",
            "task 'depth' is registered twice",
        ),
    ],
)
def test_a_plugin_that_fails(here, program, found):
    (here / "broken_plugin.py").write_text(program)
    with pytest.raises(ValueError) as error:
        import_plugins(["broken_plugin"])
    assert "plug-in broken_plugin fails while it is imported" in str(error.value) and found in str(error.value)
    assert "PYTHONPATH" not in str(error.value)


def test_an_installed_plugin_that_fails_is_named_and_stops_nothing_else(here, monkeypatch, capsys):
    def load():
        raise RuntimeError("no licence")

    entry = SimpleNamespace(name="saliency", value="my_lab.saliency", load=load)
    monkeypatch.setattr(registry, "_installed", [])
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [entry])
    monkeypatch.setattr(registry, "broken", {})
    registry.import_installed_plugins()
    words = r"plug-in saliency \(my_lab.saliency\) of an installed.*no licence.*uninstall"
    assert re.search(f"^warning: {words}", capsys.readouterr().err)
    assert TASKS["depth"].name == "depth"  # what does not need it works
    with pytest.raises(ValueError, match=f"unknown task 'saliency'.*Or it belongs to this: {words}"):
        TASKS["saliency"]
    registry.import_installed_plugins()
    assert capsys.readouterr().err == ""  # said once
