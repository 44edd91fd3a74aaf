"""The house rules, read off the sources: who may import whom, how long things get, what must be said, what is unsafe.

Every rule is a function of source text that returns its offenders; the tests apply it to the repository, and to a
planted violation, which it has to find.
"""

import ast
import re
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "symerge_dense"
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
    "commands",
)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DRAWERS = {"util", "utils", "misc", "common", "helper", "helpers"}
UNSAFE_LOADS = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def python_files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def sources(*folders):
    """{path from the root: text}"""
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in python_files(*folders)}


def offences(rule, files):
    """`path: offence` for every file of {path: text} that breaks a rule of source text."""
    return [f"{path}: {offence}" for path, text in files.items() for offence in rule(text)]


def functions(text):
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTION)]


def length(node):
    """Lines of a function or class; decorators and the docstring are not counted."""
    said = node.body[0] if ast.get_docstring(node) else None
    return node.end_lineno - node.lineno + 1 - (said.end_lineno - said.lineno + 1 if said else 0)


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


# -- plug-ins apart from machinery, one definition of every constant ----------------------------------------------------
PLUGINS = {
    "TASKS": ("tasks",),
    "HEADS": ("models/heads",),
    "DATASETS": ("datasets", "datasets/rooms", "datasets/nyuv2"),
    "MERGERS": ("merging/methods",),
    "ADAPTIVE_METHODS": ("adaptation/methods",),
}
FOLDERS = {"merging/methods": "MERGERS", "adaptation/methods": "ADAPTIVE_METHODS", "models/heads": "HEADS"}
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
        found += (
            [f"{path}: no plug-in"] if lonely and not name.startswith("_") and "class ModuleHead" not in text else []
        )
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


# -- how long things may get ------------------------------------------------------------------------------------------
def over(sizes, limit, middle):
    """Names of {name: size} above `limit`; all above `middle` too where the median is above it."""
    found = [f"{name}: {size} lines, at most {limit}" for name, size in sizes.items() if size > limit]
    if sizes and median(sizes.values()) > middle:
        found += [f"{name}: {size} lines, the median may be {middle}" for name, size in sizes.items() if size > middle]
    return found


def file_sizes(files):
    """Lines per file; a package's empty __init__.py is no file to read."""
    return {path: len(text.splitlines()) for path, text in files.items() if text.strip()}


def function_sizes(files):
    found = [(path, node) for path, text in files.items() for node in functions(text)]
    return {f"{path}:{node.name}:{node.lineno}": length(node) for path, node in found}


def test_files_stay_short():
    assert over(file_sizes(sources("symerge_dense")), limit=300, middle=120) == []


def test_functions_stay_short():
    assert over(function_sizes(sources("symerge_dense")), limit=50, middle=12) == []


def test_tools_only_parse_build_and_call():
    assert over(file_sizes(sources("tools")), limit=60, middle=60) == []


def test_tests_are_at_least_half_as_long_as_the_package():
    package, tests = (sum(file_sizes(sources(folder)).values()) for folder in ("symerge_dense", "tests"))
    assert tests >= package / 2, f"{tests} lines of tests for {package} lines of package"


def test_what_is_too_long_is_caught():
    text = "@decorated\ndef long(a,\n         b):\n    x = 1\n    return x\n\n\ndef short(): ...\n"
    sizes = function_sizes({"a.py": text})
    assert sizes == {"a.py:long:2": 4, "a.py:short:8": 1}
    assert len(over(sizes, limit=3, middle=9)) == 1 and len(over(sizes, limit=9, middle=2)) == 1
    assert over(sizes, limit=4, middle=3) == []
    assert file_sizes({"a.py": text, "empty/__init__.py": "\n"}) == {"a.py": 8}


def drawers(paths):
    """Paths through a folder or file named after nothing in particular."""
    return [path for path in paths if DRAWERS & {Path(part).stem.lower() for part in Path(path).parts}]


def test_no_drawers():
    assert drawers(sources("symerge_dense", "tools", "tests", "configs")) == []
    planted = ["a/utils/b.py", "a/Misc.py", "helpers.py"]
    assert drawers([*planted, "a/utility_model.py", "uncommon/file.py"]) == planted


# -- what must be said ------------------------------------------------------------------------------------------------
def public_members(body, owner=""):
    """(dotted name, node) of public functions, classes and methods, however deep in classes."""
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_members(node.body, f"{owner}{node.name}.")


def documented_methods(files):
    """{class: its documented methods, inherited ones included}, by the plain names of classes of all files."""
    classes = [node for text in files.values() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    methods = {node.name: [child for child in node.body if isinstance(child, FUNCTION)] for node in classes}
    known = {owner: {method.name for method in own if ast.get_docstring(method)} for owner, own in methods.items()}
    for _ in range(5):  # no family here is deeper
        for node in classes:
            known[node.name].update(*(known.get(ast.unparse(base).split(".")[-1], ()) for base in node.bases))
    return known


def undocumented(files):
    """Public items without docstring; an override may inherit its own from a class of the package."""
    known = documented_methods(files)
    trees = {path: ast.parse(text) for path, text in files.items() if text.strip()}
    found = [f"{path}: the module" for path, tree in trees.items() if not ast.get_docstring(tree)]
    for path, tree in trees.items():
        for name, node in public_members(tree.body):
            owner, _, method = name.rpartition(".")
            if not ast.get_docstring(node) and method not in known.get(owner.split(".")[-1], ()):
                found.append(f"{path}: {name}")
    return found


def unannotated(text):
    """Public functions and methods, constructors too, with a parameter or a result that has no type."""
    found = []
    for node in functions(text):
        if node.name.startswith("_") and node.name != "__init__":
            continue
        spec = node.args
        every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
        bare = [arg.arg for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
        found += [f"{node.name}: {what}" for what in bare + (["its result"] if node.returns is None else [])]
    return found


def arguments_of(node):
    """Names of a function's arguments, self and private ones left out."""
    spec = node.args
    names = [arg.arg for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    names += [arg.arg for arg in (spec.vararg, spec.kwarg) if arg]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def fields_of(node):
    """What a class is built with: its constructor's arguments, or its fields where these are its constructor's."""
    for child in node.body:
        if isinstance(child, FUNCTION) and child.name == "__init__":
            return arguments_of(child)
    kinds = [ast.unparse(kind) for kind in (*node.decorator_list, *node.bases)]
    if not any("dataclass" in kind or "NamedTuple" in kind for kind in kinds):
        return []
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)]
    taken = [
        field for field in fields if "ClassVar" not in ast.unparse(field) and "init=False" not in ast.unparse(field)
    ]
    return [field.target.id for field in taken if not field.target.id.startswith("_")]


def unexplained(text):
    """Public names with a docstring that does not give every argument a line under ``Args:``.

    Properties and MMEngine's hook points are exempt, and so is an override without a docstring, which inherits one.
    """
    found = []
    for name, node in public_members(ast.parse(text).body):
        is_class = isinstance(node, ast.ClassDef)
        plain = [ast.unparse(decorator) for decorator in node.decorator_list]
        if {"property", "cached_property"} & set(plain) or re.match(r"(before|after)_", node.name):
            continue
        docstring = ast.get_docstring(node)
        block = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring or "", re.MULTILINE)
        lines = block[1] if block else ""
        wanted = fields_of(node) if is_class else arguments_of(node)
        absent = [arg for arg in wanted if not re.search(rf"^\s+\*{{0,2}}{arg}\b[^:\n]*:", lines, re.MULTILINE)]
        found += [f"{name}: {', '.join(absent)}"] if absent and docstring else []
    return found


def test_every_argument_of_a_public_name_is_explained():
    assert offences(unexplained, sources("symerge_dense")) == []
    text = 'def f(a, *, b):\n    """Do.\n\n    Args:\n        a: one.\n    """\n'
    assert unexplained(text) == ["f: b"] and unexplained(text.replace("a: one.", "a: one.\n        b: two.")) == []
    assert unexplained('class A:\n    """An A."""\n    def __init__(self, size): ...') == ["A: size"]


def test_everything_public_is_documented():
    assert undocumented(sources("symerge_dense")) == []


def test_everything_public_is_annotated():
    assert offences(unannotated, sources("symerge_dense", "tools")) == []


def test_what_is_not_said_is_caught():
    base = '"""A module."""\nclass Base:\n    """A class."""\n    def told(self):\n        """Told."""\n'
    heir = base.replace("Base:", "Heir(base.Base):").replace('"""Told."""', "...") + "    def untold(self): ...\n"
    assert undocumented({"a.py": base, "b.py": heir}) == ["b.py: Heir.untold"]
    assert undocumented({"c.py": "def f(): ...\ndef _g(): ..."}) == ["c.py: the module", "c.py: f"]
    assert undocumented({"d.py": base.replace('"""A class."""', "pass")}) == ["d.py: Base"]
    assert unannotated("def f(a, *b: int, c=1, **d) -> None: ...\ndef _g(x): ...") == ["f: a", "f: c", "f: d"]
    assert unannotated("class A:\n    def __init__(self, a: int): ...") == ["__init__: its result"]


# -- what is unsafe ---------------------------------------------------------------------------------------------------
def aliases(tree):
    """{name used in the file: the full dotted name it stands for}"""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unsafe(text):
    """Loads that may run code out of a file: pickle and its kin, and loaders not told to refuse pickled objects."""
    tree = ast.parse(text)
    names = aliases(tree)
    found = [f"line {node.lineno}: imports {name}" for node in ast.walk(tree) for name in pickles(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, _, rest = ast.unparse(node.func).partition(".")
            keyword, needed = UNSAFE_LOADS.get(f"{names.get(head, head)}.{rest}".strip("."), (None, None))
            given = {word.arg: word.value for word in node.keywords}.get(keyword)
            if keyword and not (isinstance(given, ast.Constant) and given.value is needed):
                found.append(f"line {node.lineno}: {ast.unparse(node.func)} without {keyword}={needed}")
    return found


def pickles(node):
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
    return [name for name in modules if name.split(".")[0] in PICKLES]


def test_no_file_can_run_code_by_being_read():
    assert offences(unsafe, sources("symerge_dense", "tools")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load as read\nread(path, map_location='cpu')",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, mmap_mode='r', allow_pickle=True)",
        "import pickle",
        "from pickle import loads",
        "def late():\n    import dill as safe",
    ],
)
def test_an_unsafe_load_is_caught(text):
    assert len(unsafe(text)) == 1


def test_a_safe_load_is_let_through():
    text = "import numpy as np\nimport torch\nnp.load(p, allow_pickle=False)\ntorch.load(p, weights_only=True)\nload(p)"
    assert unsafe(text) == []
