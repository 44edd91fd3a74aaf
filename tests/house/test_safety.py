"""No file can run code by being read: no pickles, and loaders that are told to refuse them."""

import ast

import pytest
from builders.house_sources import offences, sources

UNSAFE_LOADS = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


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
