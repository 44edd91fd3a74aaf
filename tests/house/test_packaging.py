"""What setup.py requires and installs: every library that is imported, no other, and the stubs of every room."""

import ast
import importlib.util
import re
import runpy
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "onedl-mmengine": "mmengine",
    "onedl-mmcv": "mmcv",
    "onedl-mmsegmentation": "mmseg",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "lazy-loader": "lazy_loader",
    "openexr": "OpenEXR",
}
EXPLAINED = {"ftfy", "regex", "onnxscript"}  # a comment in setup.py says who imports them
OPTIONAL = ("convert", "export", "ray")  # extras, imported where a file or a command needs them


@pytest.fixture(scope="module")
def packaging():
    """What setup.py passes to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **options: given.update(options))
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def distribution(requirement):
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower()


def modules(requirements):
    """The modules that one imports from what is required."""
    return {MODULES.get(name, name) for name in map(distribution, requirements)} - EXPLAINED


def pins(file="constraints.txt"):
    lines = (ROOT / file).read_text("utf-8").splitlines()
    named = [re.split(r"[; ]", line)[0].split("==") for line in lines if line and line[0] not in "# "]
    return {name.lower().replace("_", "-"): version for name, version in named}


def imported(folder, everywhere=True):
    """{library: files that import it}; ``everywhere``: inside functions too."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree) if everywhere else tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"symerge_dense", ""}:
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


# -- libraries --------------------------------------------------------------------------------------------------------
def optional(packaging):
    """{extra: its modules}."""
    return {extra: modules(packaging["extras_require"][extra]) for extra in OPTIONAL}


def test_every_library_that_the_package_imports_is_required(packaging):
    allowed = modules(packaging["install_requires"]).union(*optional(packaging).values())
    for folder in ("symerge_dense", "tools", "configs"):
        assert set(imported(folder)) <= allowed


def test_every_required_library_is_imported(packaging):
    assert modules(packaging["install_requires"]) <= set(imported("symerge_dense"))
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "symerge_dense").rglob("*.py"))
    for extra, names in optional(packaging).items():
        for name in names:
            assert re.search(rf'optional_import\(\s*"{name}[".]', sources), f"{name} of {extra!r} is not imported"


def test_what_an_extra_installs_is_imported_when_it_is_needed(packaging):
    for names in optional(packaging).values():
        assert names and not names & set(imported("symerge_dense", everywhere=False))
        assert modules(packaging["extras_require"]["dev"]) >= names


def test_every_requirement_has_a_tested_version(packaging):
    required = [
        *packaging["install_requires"],
        *(name for extra in packaging["extras_require"].values() for name in extra),
    ]
    assert {distribution(name).replace("_", "-") for name in required} <= set(pins())


def test_both_packages_of_opencv_have_one_version():
    """They install the same files, and libraries that are required ask for either."""
    assert pins()["opencv-python"] == pins()["opencv-python-headless"]
    assert importlib.util.find_spec("cv2") is not None


def test_the_locked_files_are_those_of_the_tested_versions():
    """`make lock` after a change of constraints.txt; only CUDA's packages and build tools are not in both."""
    locked, tested = pins("requirements.lock"), pins()
    assert {name: locked.get(name) for name in tested} == tested
    assert {name.split("-")[0] for name in locked.keys() - tested.keys()} <= {"nvidia", "cuda", "triton", "setuptools"}
    entries = re.split(r"\n(?=\w)", (ROOT / "requirements.lock").read_text("utf-8").split("\n", 2)[2])
    assert len(entries) == len(locked)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


# -- files ------------------------------------------------------------------------------------------------------------
def test_the_stubs_of_every_room_are_installed(packaging):
    data = packaging["package_data"]
    stubs = sorted((ROOT / "symerge_dense").rglob("*.pyi"))
    assert len(stubs) > 20
    for stub in stubs:
        room = ".".join(stub.parent.relative_to(ROOT).parts)
        assert room in packaging["packages"]
        assert any(fnmatch(stub.name, pattern) for pattern in [*data.get("", ()), *data.get(room, ())]), stub
    assert "py.typed" in data["symerge_dense"]
