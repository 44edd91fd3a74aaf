"""The sources of the project as text, for tests of the house rules: a rule is a function that returns its offenders."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "symerge_dense"
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


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


def docstring_lines(node):
    """Lines that a docstring takes in a module, class or function."""
    said = node.body[0] if node.body and ast.get_docstring(node) else None
    return said.end_lineno - said.lineno + 1 if said else 0


def length(node):
    """Lines of a function or class; decorators and the docstring are not counted."""
    return node.end_lineno - node.lineno + 1 - docstring_lines(node)
