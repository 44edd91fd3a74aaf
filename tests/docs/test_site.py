"""The site: every page of its navigation exists, every room has its reference, every link leads somewhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PAGES |= {"data/README.md": "data.md", "SECURITY.md": "security.md"}
MARKDOWN = sorted([*(ROOT / name for name in PAGES), *DOCS.rglob("*.md")])
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROOM_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|pyi|md|json|png|safetensors))`")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without importing what it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)


def entries(nav):
    """All pages of a navigation, however deep."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in entries(part)]


def rooms():
    """The rooms of the package, their plug-ins apart."""
    folders = [path.parent for path in (ROOT / "symerge_dense").glob("*/__init__.py")]
    plugins = {f"{f.name}.{part}" for f in folders for part in ("methods", "teachers") if (f / part).is_dir()}
    return {folder.name for folder in folders} | plugins


def links(text):
    """Targets of the links of a Markdown text, those in code left out."""
    return LINK.findall(CODE.sub("", text))


def missing(path, text):
    """Relative links of a Markdown file that lead to no file."""
    local = [target.partition("#")[0] for target in links(text) if "://" not in target]
    return [name for name in local if name and not generated(path, name) and not (path.parent / name).exists()]


def generated(path, name):
    """Whether a link leads to a page that the build makes: the API reference, or a page of the repository's root."""
    page = Path(os.path.normpath(path.parent / name))
    return page.parent == DOCS / "api" or (page.parent == DOCS and page.name in PAGES.values())


# -- without MkDocs ---------------------------------------------------------------------------------------------------
def test_every_page_of_the_navigation_exists_and_every_page_is_in_it():
    named = [page for page in entries(SITE["nav"]) if not page.startswith("api/")]
    own = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "studies"}
    assert len(named) == len(set(named)) and set(named) == own | set(PAGES.values())


def test_every_room_has_a_page_of_the_reference():
    pages = [page for page in entries(SITE["nav"]) if page.startswith("api/")]
    assert sorted(pages) == sorted(["api/index.md", *(f"api/{room}.md" for room in rooms())])


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(path):
    assert missing(path, path.read_text("utf-8")) == []


def test_a_link_that_leads_nowhere_is_caught():
    text = "[a](nothing.md) [b](methods.md#x) [c](https://a.b/c) `[d](no.md)` [e](#here) [f](api/tasks.md)\n"
    assert missing(DOCS / "page.md", text + "```\n[g](no.md)\n```\n") == ["nothing.md"]


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(name):
    found = [file for file in ROOM_FILE.findall((ROOT / name).read_text("utf-8")) if "NAME" not in file]
    assert len(found) > 8
    assert [file for file in found if not (ROOT / file).exists() and not (ROOT / "symerge_dense" / file).exists()] == []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_and_command_file_that_is_named_exists(path):
    named = re.findall(r"\b((?:tests|tools)/[\w/]+\.(?:py|sh))", path.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and "NAME" not in name] == []


def test_nothing_is_fetched_by_the_pages():
    assert SITE["theme"]["font"] is False and not SITE.get("extra_javascript") and not SITE.get("extra_css")


# -- with MkDocs ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_hooks_know_the_rooms_and_their_modules(hooks):
    assert set(hooks.rooms()) == rooms() and hooks.PAGES == PAGES
    assert "symerge_dense.merging.run" in hooks.modules("merging")
    assert not any(".methods" in name or "._" in name for name in hooks.modules("merging"))
    assert "symerge_dense.merging.methods.ties" in hooks.modules("merging.methods")


@pytest.mark.parametrize(
    ("source", "text", "wanted"),
    [
        ("README.md", "[a](docs/nyuv2.md#x) ![b](docs/panels.png)", "[a](nyuv2.md#x) ![b](panels.png)"),
        ("README.md", "[a](CONTRIBUTING.md) [b](LICENSE) [c](#here)", "[a](contributing.md) b [c](#here)"),
        ("docs/nyuv2.md", "[a](../data/README.md) [b](methods.md)", "[a](data.md) [b](methods.md)"),
        (
            "docs/tutorials/own_data.md",
            "[a](../../README.md#x) [b](own_task.md)",
            "[a](../index.md#x) [b](own_task.md)",
        ),
        (
            "README.md",
            "`[a](docs/nyuv2.md)` [b](https://a.b/docs/c.md)",
            "`[a](docs/nyuv2.md)` [b](https://a.b/docs/c.md)",
        ),
        ("README.md", "[a](docs/nothing.md)", "[a](docs/nothing.md)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(hooks, source, text, wanted):
    assert hooks.relinked(text, source) == wanted


def test_the_site_builds_strictly_and_soon(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python"):
        pytest.importorskip(name)
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert time.perf_counter() - start < 60
    home, tasks = ((tmp_path / "site" / page).read_text("utf-8") for page in ("index.html", "api/tasks.html"))
    assert 'href="nyuv2.html"' in home and 'src="panels.png"' in home
    assert 'id="symerge_dense.tasks.depth.Depth"' in tasks
    assert "fonts.googleapis" not in home
    shutil.rmtree(tmp_path / "site")
