"""The public names of every room: public_api.json lists them, each means the same however it is reached, all is light.

A room's `__init__.pyi` says which names it has. Whoever adds or drops one there does so in public_api.json too.
"""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from builders.prepared_python import Python

ROOT = Path(__file__).resolve().parents[2]
LISTED = json.loads((Path(__file__).parent / "public_api.json").read_text("utf-8"))
ROOMS = [room for room, names in LISTED.items() if names]


def folder_of(room):
    return ROOT.joinpath(*room.split("."))


def stub_of(room):
    return (folder_of(room) / "__init__.pyi").read_text("utf-8")


def submodules(folder):
    """Names of the modules and rooms in a folder."""
    return {module.name for module in pkgutil.iter_modules([str(folder)])}


def exports(stub):
    """[(name, module that the stub takes it from, '' for a room within the room, dots before it, name after 'as')]"""
    nodes = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    return [(alias.name, node.module or "", node.level, alias.asname) for node in nodes for alias in node.names]


def unsound(stub, modules):
    """Names that a type checker would not take for public, that come from elsewhere, that an import would replace."""
    found = []
    for name, module, level, public in exports(stub):
        if public != name:
            found.append(f"{name}: write 'import {name} as {name}'")
        if level != 1:
            found.append(f"{name}: a room exports what lies in its own folder")
        if module and name in modules:
            found.append(f"{name}: importing the module of that name would replace it")
    return found


def source_says(module, name):
    """Whether a docstring follows the assignment of ``name`` in a module, or a comment ends its line."""
    text = Path(module.__file__).read_text("utf-8")
    body = ast.parse(text).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return told or re.search(r"  # \w", text.splitlines()[node.end_lineno - 1]) is not None
    return False


def is_documented(value, module, name):
    """By its own docstring, by that of its class where that is the package's, or beside its assignment."""
    own = value if isinstance(value, ModuleType | type) or callable(value) else type(value)
    if isinstance(own, ModuleType) or own.__module__.startswith("symerge_dense."):
        return bool((own.__doc__ or "").strip())
    return source_says(module, name)


# -- the list ---------------------------------------------------------------------------------------------------------
def test_every_folder_of_the_package_is_listed():
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "symerge_dense").rglob("__init__.py")]
    assert {".".join(folder.parts) for folder in folders} == set(LISTED), "public_api.json: [] for a room without names"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_what_is_listed(room):
    found = importlib.import_module(room).__all__
    assert found == sorted(found) == LISTED[room]


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_is_there_and_documented(room):
    package = importlib.import_module(room)
    for name, source, *_ in exports(stub_of(room)):
        value = getattr(package, name)
        module = importlib.import_module(f"{room}.{source or name}")
        assert value is (getattr(module, name) if source else module), name
        assert source == "" or name in vars(module), name
        assert is_documented(value, module, name), f"{room}.{name} does not say what it is"
        assert name in dir(package)


def test_what_is_not_documented_is_noticed(tmp_path):
    path = tmp_path / "planted.py"
    path.write_text('TOLD = (1,)\n"""What it is."""\nBESIDE: tuple = (2,)  # what it is\nUNTOLD = (3,)\n')
    module = ModuleType("symerge_dense.planted")
    module.__file__ = str(path)
    assert [is_documented((1,), module, name) for name in ("TOLD", "BESIDE", "UNTOLD")] == [True, True, False]
    bare = type("Bare", (), {"__module__": "symerge_dense.planted"})
    assert not is_documented(bare, module, "Bare") and not is_documented(bare(), module, "BARE")


@pytest.mark.parametrize("room", ROOMS)
def test_an_unknown_name_is_refused(room):
    with pytest.raises(AttributeError, match="not_there"):
        getattr(importlib.import_module(room), "not_there")  # noqa: B009
    with pytest.raises(ImportError, match="not_there"):
        exec(f"from {room} import not_there")


# -- one name, one meaning --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("room", ROOMS)
def test_the_stubs_are_sound(room):
    assert unsound(stub_of(room), submodules(folder_of(room))) == []


@pytest.mark.parametrize(
    "line, offence",
    [
        ("from .evaluate import evaluate as evaluate", "would replace it"),
        ("from .delta_m import evaluate as evaluate", "would replace it"),
        ("from .metric import DenseMetric", "write 'import DenseMetric as DenseMetric'"),
        ("from .metric import DenseMetric as Metric", "write 'import DenseMetric as DenseMetric'"),
        ("from ..tasks.base import DenseTask as DenseTask", "its own folder"),
        ("from symerge_dense.tasks.base import DenseTask as DenseTask", "its own folder"),
    ],
)
def test_an_unsound_stub_is_caught(line, offence):
    modules = submodules(folder_of("symerge_dense.evaluation"))
    assert {"evaluate", "delta_m", "metric"} <= modules
    assert [offence in found for found in unsound(line, modules)] == [True]
    assert unsound("from . import evaluate as evaluate\nfrom .metric import Metric as Metric", modules) == []


EITHER_ORDER = """
import importlib, json, pkgutil, sys

def by_name():
    return {f"{room}.{name}": getattr(importlib.import_module(room), name) for room, name, _ in exports}

def by_module():
    for room in sorted({room for room, *_ in exports}):
        for module in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
            importlib.import_module(module.name)

exports = json.loads(sys.argv[2])
steps = [by_name, by_module] if sys.argv[1] == "names first" else [by_module, by_name]
for step in steps:
    step()
found = by_name()
for room, name, source in exports:
    module = importlib.import_module(f"{room}.{source or name}")
    assert found[f"{room}.{name}"] is (getattr(module, name) if source else module), f"{room}.{name}"
print(len(found))
"""


@pytest.mark.parametrize("order", ["names first", "modules first"])
def test_a_name_means_the_same_whatever_was_imported_before(order):
    every = [(room, name, source) for room in ROOMS for name, source, *_ in exports(stub_of(room))]
    assert int(Python("-c", EITHER_ORDER, order, json.dumps(every), folder=ROOT).printed()) == len(every)


# -- what an import costs ---------------------------------------------------------------------------------------------
def run(code, *arguments):
    """What a program of its own prints."""
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout


NEWCOMERS = """
import importlib, sys
before = set(sys.modules)
for room in sys.argv[1:]:
    importlib.import_module(room)
print(*(name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names))
"""


def test_importing_the_package_imports_nothing_of_it_but_itself():
    assert set(run(NEWCOMERS, "symerge_dense").split()) == {"symerge_dense", "lazy_loader"}


def test_importing_a_room_imports_neither_its_modules_nor_any_library():
    found = set(run(NEWCOMERS, *ROOMS).split())
    assert not found & {"torch", "mmengine"}
    assert found == {*ROOMS, "lazy_loader"}


def test_the_version_is_there_without_a_lookup():
    import symerge_dense

    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", vars(symerge_dense)["__version__"])
