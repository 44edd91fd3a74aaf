"""What must be said: docstrings, every argument in them, and types."""

import ast
import re
from pathlib import Path

from builders.house_sources import FUNCTION, functions, offences, sources

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (".py", ".pyi", ".md", ".css", ".js", ".ipynb", ".toml", ".yml", ".txt", ".sh", ".json")


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
    found = offences(unexplained, sources("symerge_dense"))
    contract = ("arguments: parser", "run: options")  # of a command, explained once in commands/__init__.py
    checks = re.compile(r"symerge_dense/testing/\w+\.py: check_\w+: \w+")  # what they take: explained once in each file
    assert [
        line
        for line in found
        if not (line.startswith("symerge_dense/commands/") and line.endswith(contract)) and not checks.fullmatch(line)
    ] == []
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


def test_no_file_holds_a_merge_conflict():
    """Linters look at Python alone; a style sheet or a page may keep the markers of a conflict."""
    mark = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert mark.search("a\n<<<<<<< HEAD\n")
    folders = ("symerge_dense", "docs", "tests", "configs", "tools")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in TEXTS]
    texts += [path for path in ROOT.glob("*") if path.suffix in TEXTS]
    assert len(texts) > 400
    assert not [path for path in texts if mark.search(path.read_text("utf-8"))]
