"""Numbers that stand in two files agree: versions of tools, of Python and PyTorch, and of the package."""

import re
from pathlib import Path

import yaml

import symerge_dense

ROOT = Path(__file__).resolve().parents[2]


def text(name):
    return (ROOT / name).read_text("utf-8")


def found(pattern, name):
    """The one group of a pattern that must be in a file."""
    match = re.search(pattern, text(name), re.MULTILINE)
    assert match, f"{name} has no {pattern}"
    return match[1]


OLDEST = found(r'python_requires=">=([\d.]+)"', "setup.py")


def test_types_and_lint_are_checked_for_the_oldest_python():
    assert found(r'^python_version = "([\d.]+)"', "pyproject.toml") == OLDEST
    assert found(r'^target-version = "py(\d+)"', "pyproject.toml") == OLDEST.replace(".", "")


def test_commits_are_checked_by_the_ruff_that_is_installed():
    hooks = {repo["repo"].rpartition("/")[2]: repo for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]}
    ruff = hooks["ruff-pre-commit"]
    assert ruff["rev"] == "v" + found(r"^ruff==(\S+)", "constraints.txt")
    assert {hook["id"] for hook in ruff["hooks"]} == {"ruff-check", "ruff-format"}


def test_ci_tries_the_oldest_python_and_the_oldest_torch():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix["python"][0] == OLDEST
    (oldest,) = matrix["include"]
    floors = {name: found(rf'"{name}>=([\d.]+)"', "setup.py") for name in ("torch", "torchvision")}
    assert oldest == {"python": OLDEST, "torch": " ".join(f"{name}=={least}.*" for name, least in floors.items())}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make lint", "make docs"} <= set(commands)


def test_make_check_is_all_that_a_change_must_pass():
    lint = found(r"^lint:.*\n((?:\t.*\n)+)", "Makefile")
    assert [line.split("/")[-1] for line in lint.split("\n") if line] == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
    ]
    assert "make check" in text(".ci/run") and re.search(
        r"^check: lint docs\n\t\$\(MAKE\) test$", text("Makefile"), re.MULTILINE
    )


def test_the_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == symerge_dense.__version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/2412.19098"
    assert found(r"^## ([\d.]+)", "CHANGELOG.md") == symerge_dense.__version__
