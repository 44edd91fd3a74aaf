"""What MkDocs does for this site beside rendering docs/: pages from the root, links into them, the API reference.

README, CONTRIBUTING, CHANGELOG and SECURITY stay where repositories keep them and are pages of the site all the same.
The API reference has one page a room, made from the folders of the package, so that a new file is in it
without a line here.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "symerge_dense"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "data/README.md": "data.md",
}
"""Markdown files of the repository outside docs/, and the pages that they are."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
PLUGINS = ("methods", "teachers")  # folders of a room with a page of their own
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


# -- the API reference ------------------------------------------------------------------------------------------------
def rooms(package: Path = ROOT / PACKAGE) -> list[str]:
    """The rooms that have a page: the folders of the package, and their plug-ins apart, as 'merging.methods'."""
    top = sorted(path.name for path in package.iterdir() if (path / "__init__.py").is_file())
    return [
        room
        for name in top
        for room in (name, *(f"{name}.{part}" for part in PLUGINS))
        if (package / room.replace(".", "/")).is_dir()
    ]


def modules(room: str, package: Path = ROOT / PACKAGE) -> list[str]:
    """Dotted names of the public modules of a room; its plug-ins are a room of their own."""
    folder = package / room.replace(".", "/")
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not any(part.startswith("_") for part in parts) and parts[0] not in PLUGINS:
            found.append(".".join((package.name, *room.split("."), *parts)))
    return found


def _title(path: Path) -> str:
    """The first line of a module's docstring."""
    match = re.match(r'\s*"""(.*?)(?:"""|\n)', path.read_text("utf-8")) if path.is_file() else None
    return match[1].strip() if match else ""


def api_page(room: str) -> str:
    """Markdown of one room: what it is, and a block of mkdocstrings for each module."""
    said = _title(ROOT / PACKAGE / room.replace(".", "/") / "__init__.py")
    blocks = "\n".join(f"::: {name}\n" for name in modules(room))
    return f"# {PACKAGE}.{room}\n\n{said}\n\n{blocks}"


def api_index() -> str:
    """Markdown of the reference's first page: the rooms, and the modules that every room may import."""
    listed = "\n".join(
        f"| [{room}]({room}.md) | {_title(ROOT / PACKAGE / room.replace('.', '/') / '__init__.py')} |"
        for room in rooms()
    )
    top = [path.stem for path in sorted((ROOT / PACKAGE).glob("*.py")) if not path.stem.startswith("_")]
    blocks = "\n".join(f"::: {PACKAGE}.{name}\n" for name in top)
    return f"# API reference\n\n| room | |\n|---|---|\n{listed}\n\nModules that every room may import:\n\n{blocks}"


# -- links ------------------------------------------------------------------------------------------------------------
def page_of(path: str) -> str | None:
    """The page of a file of the repository, both as paths with slashes; None for a file that the site has not."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def relinked(markdown: str, source: str) -> str:
    """The text of ``source`` (a path from the root) with its relative links as links of the site.

    A link to a file that is no part of the site, such as a config, becomes its plain text.
    """
    here, page = posixpath.dirname(source), page_of(source)

    def link(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        name, hash_, anchor = target.partition("#")
        if "://" in target or target.startswith(("mailto:", "#")):
            return match[0]
        path = posixpath.normpath(posixpath.join(here, name))
        if not (ROOT / path).exists():
            return match[0]  # MkDocs complains: a strict build fails
        wanted = page_of(path)
        if wanted is None:
            return text
        return f"{image}[{text}]({posixpath.relpath(wanted, posixpath.dirname(page or '') or '.')}{hash_}{anchor})"

    pieces = CODE.split(markdown)
    return "".join(piece if number % 2 else LINK.sub(link, piece) for number, piece in enumerate(pieces))


# -- what MkDocs calls ------------------------------------------------------------------------------------------------
def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    pages = {page: (ROOT / source).read_text("utf-8") for source, page in PAGES.items() if (ROOT / source).is_file()}
    pages |= {f"api/{room}.md": api_page(room) for room in rooms()} | {"api/index.md": api_index()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that hold in the repository hold on the site."""
    sources = {made: source for source, made in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return relinked(markdown, source)
