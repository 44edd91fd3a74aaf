"""Who may import whom, where plug-ins stand, one definition of every constant: read off the sources.

Each rule is applied to the repository, and to a planted violation, which it has to find.
"""

import ast
from pathlib import Path

import pytest
from builders.house_sources import PACKAGE, sources

ROOMS = (
    "datasets",
    "tasks",
    "models",
    "engine",
    "experts",
    "merging",
    "adaptation",
    "evaluation",
    "report",
    "preparation",
    "inference",
    "pipeline",
    "studies",
    "testing",
    "commands",
)


# -- who imports whom -------------------------------------------------------------------------------------------------
def imports(text, path="symerge_dense/room/file.py"):
    """Full dotted names of all that a file imports, also inside functions and by import_module("...")."""
    package = Path(path).parent.parts
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def room_of(parts):
    """The room of a path or dotted name split in parts; None for a module of the root."""
    return parts[1] if len(parts) > 1 and parts[0] == "symerge_dense" and parts[1] in ROOMS else None


def imports_to_the_right(files):
    """Imports of a room that stands to the right of the importing one. A root module may import no room at all."""
    found = []
    for path, text in files.items():
        own = room_of(Path(path).parts)
        rank = ROOMS.index(own) if own else -1
        rooms = {name: room_of(name.split(".")) for name in imports(text, path)}
        found += [f"{path} imports {name}" for name, room in sorted(rooms.items()) if room and ROOMS.index(room) > rank]
    return found


def importers(files, library):
    return {path for path, text in files.items() if any(name.split(".")[0] == library for name in imports(text, path))}


def test_the_rooms_are_the_folders():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ROOMS), "a new room needs its place in the order"


def test_no_room_imports_a_room_to_its_right():
    assert imports_to_the_right(sources("symerge_dense")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import symerge_dense.adaptation.hook",
        "from symerge_dense.engine import hook",
        "from symerge_dense import engine",
        "from ..engine.hook import Hook",
        "from .. import engine",
        "def late():\n    from symerge_dense.engine import hook",
        "import importlib\nimportlib.import_module('symerge_dense.adaptation.hook')",
    ],
)
def test_an_import_to_the_right_is_caught_however_it_is_written(line):
    assert len(imports_to_the_right({"symerge_dense/tasks/planted.py": line})) == 1
    assert len(imports_to_the_right({"symerge_dense/planted.py": line.replace("..", ".")})) == 1
    assert imports_to_the_right({"symerge_dense/adaptation/fine.py": line, "symerge_dense/report/fine.py": line}) == []


def test_what_is_not_a_room_may_be_imported_by_all():
    line = "from symerge_dense.registry import TASKS\nfrom ..progress import track\nimport torch\nfrom . import base"
    assert imports_to_the_right({f"symerge_dense/{room}/fine.py": line for room in ROOMS}) == []


def test_only_the_adapter_imports_mmseg():
    assert importers(sources("symerge_dense", "tools"), "mmseg") <= {"symerge_dense/models/heads/mmseg.py"}
    planted = {"a.py": "def f():\n    from mmseg.models import x", "b.py": "import mmsegfault"}
    assert importers(planted, "mmseg") == {"a.py"}


# -- plug-ins apart from machinery, one definition of every constant -------------------------------------------------
PLUGINS = {
    "TASKS": ("tasks",),
    "HEADS": ("models/heads",),
    "DATASETS": ("datasets", "datasets/rooms", "datasets/nyuv2"),
    "MERGERS": ("merging/methods",),
    "ADAPTIVE_METHODS": ("adaptation/methods",),
    "TEACHERS": ("adaptation/teachers",),
    "STUDIES": ("studies",),
}
FOLDERS = {
    "merging/methods": "MERGERS",
    "adaptation/methods": "ADAPTIVE_METHODS",
    "adaptation/teachers": "TEACHERS",
    "models/heads": "HEADS",
    "studies": "STUDIES",
}
SHARED = {"base.py", "__init__.py"}  # of a plug-in folder: what its plug-ins derive from, and what it exports


def registered(text):
    """Names of the registries that a file's classes enter."""
    tree = ast.parse(text)
    decorators = [d for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for d in node.decorator_list]
    words = [ast.unparse(decorator).split("(")[0] for decorator in decorators]
    return {word.split(".")[0] for word in words if word.endswith(".register_module")}


def misplaced(files):
    """Plug-ins outside their folders, and files of a plug-in folder that are neither plug-in nor shared (_name.py)."""
    found = []
    for path, text in files.items():
        folder, name = path.removeprefix("symerge_dense/").rpartition("/")[::2]
        entries = registered(text)
        found += [f"{path}: {entry}" for entry in entries if entry in PLUGINS and folder not in PLUGINS[entry]]
        lonely = folder in FOLDERS and FOLDERS[folder] not in entries and name not in SHARED
        found += [f"{path}: no plug-in"] if lonely and not name.startswith("_") else []
    return found


def constants(text):
    """{name: literal} of the numbers, texts and tuples that a module defines in capitals."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper() and not name.startswith("_"):
                try:
                    found[name] = ast.literal_eval(node.value)
                except ValueError:
                    continue
    return found


def defined_twice(files):
    """Constants of one name and one value in two files: the second should import the first."""
    owners, found = {}, []
    for path, text in files.items():
        for name, value in constants(text).items():
            first = owners.setdefault((name, repr(value)), path)
            found += [f"{name} = {value!r} in {first} and {path}"] if first != path else []
    return found


def test_plugins_stand_apart_from_machinery():
    assert misplaced(sources("symerge_dense")) == []
    plugin = "from x import MERGERS\n@MERGERS.register_module()\nclass A: ...\n"
    planted = {"symerge_dense/merging/sly.py": plugin, "symerge_dense/merging/methods/helper.py": "def f(): ..."}
    assert len(misplaced(planted)) == 2
    fine = {"symerge_dense/merging/methods/a.py": plugin, "symerge_dense/merging/methods/_shared.py": "def f(): ..."}
    assert misplaced(fine) == []


def test_every_constant_has_one_definition():
    assert defined_twice(sources("symerge_dense")) == []
    assert len(defined_twice({"a.py": "INVALID = 255\nN = 1", "b.py": "INVALID = 255\nN = 2"})) == 1


def test_labels_that_mark_nothing_are_written_once():
    """255, Eigen's crop, and the lengths that no normal has stand in datasets/targets.py and nowhere else."""
    values = {255, 1.2, (480, 640), (45, 471, 41, 601)}
    found = [
        f"{path}: {name}"
        for path, text in sources("symerge_dense").items()
        for name, value in constants(text).items()
        if path != "symerge_dense/datasets/targets.py" and not isinstance(value, (list, dict, set)) and value in values
    ]
    assert found == []
