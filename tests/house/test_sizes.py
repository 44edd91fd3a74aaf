"""How long files and functions may get, and names that say nothing."""

import ast
from pathlib import Path
from statistics import median

from builders.house_sources import FUNCTION, docstring_lines, functions, length, sources

DRAWERS = {"util", "utils", "misc", "common", "helper", "helpers"}


def over(sizes, limit, middle):
    """Names of {name: size} above `limit`; all above `middle` too where the median is above it."""
    found = [f"{name}: {size} lines, at most {limit}" for name, size in sizes.items() if size > limit]
    if sizes and median(sizes.values()) > middle:
        found += [f"{name}: {size} lines, the median may be {middle}" for name, size in sizes.items() if size > middle]
    return found


def file_sizes(files):
    """Lines per file; a package's empty __init__.py is no file to read."""
    return {path: len(text.splitlines()) for path, text in files.items() if text.strip()}


def code_sizes(files):
    """Lines per file without docstrings, which say what arguments mean and are read one at a time."""
    kinds = (ast.Module, ast.ClassDef, *FUNCTION)
    said = {
        path: [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)] for path, text in files.items()
    }
    return {path: size - sum(map(docstring_lines, said[path])) for path, size in file_sizes(files).items()}


def function_sizes(files):
    found = [(path, node) for path, text in files.items() for node in functions(text)]
    return {f"{path}:{node.name}:{node.lineno}": length(node) for path, node in found}


def test_files_stay_short():
    files = {path: text for path, text in sources("symerge_dense").items() if not path.endswith("__init__.py")}
    assert over(file_sizes(files), limit=300, middle=300) == []
    assert over(code_sizes(files), limit=300, middle=110) == []


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
