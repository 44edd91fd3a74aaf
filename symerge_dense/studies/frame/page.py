"""docs/studies.md: the table of verdicts, then a section and a plot for every study that was run in full."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from symerge_dense.fileio import atomic_write, write_text
from symerge_dense.pipeline.config_files import shipped_studies
from symerge_dense.progress import console, say
from symerge_dense.registry import STUDIES
from symerge_dense.report.results import read_json
from symerge_dense.report.run_tables import markdown
from symerge_dense.report.table import UNDEFINED
from symerge_dense.studies.frame.costs import markdown_costs
from symerge_dense.studies.frame.execution import ROOT
from symerge_dense.studies.frame.outputs import COSTS_PLOT, markdown_study
from symerge_dense.studies.frame.plan import load_plan

HEAD = """# Studies

Every claim of the method, tested where it could fail. A study is a grid of runs over several seeds, each with a base,
experts and adaptations of its own, and a rule for its verdict that was written before the runs. All numbers are printed
by the command of their section; `symerge study all` made this page.
"""
COSTS_FILE = "costs.json that symerge study"


def print_list() -> None:
    """Print claim, question and cost of every study that comes with the package."""
    table = Table("study", "claim", "question", "runs", "cost in full, by estimate")
    for name in shipped_studies():
        plan = load_plan(name)
        table.add_row(name, plan.study.claim, plan.study.question, str(len(plan.runs())), plan.cost)
    console.print(table)


def write_page(root: str | None = None, out: str = "docs/studies.md") -> None:
    """Write the page of all studies that were run in full, and copy their plots into a folder beside it.

    A file NAME.md in that folder is put into the section of its study: what surprised, and the best explanation.

    Args:
        root: folder with one folder per study; None takes work_dirs/studies.
        out: the page.

    Raises:
        ValueError: no study was run in full, or a file is damaged.
    """
    found = full_studies(Path(root or ROOT))
    if not found:
        raise ValueError(f"{root or ROOT} holds no study that was run in full; run one first: symerge study NAME.")
    page = Path(out)
    beside = page.parent / page.stem
    for folder, record in found:
        for plot, name in (("study.png", f"{record['name']}.png"), (COSTS_PLOT, f"{record['name']}-{COSTS_PLOT}")):
            if (folder / plot).exists():
                with atomic_write(beside / name) as temporary:
                    shutil.copyfile(folder / plot, temporary)
    names = [record["name"] for _, record in found]
    missing = [name for name in shipped_studies() if name not in names]
    rest = f"\nNot run in full yet: {', '.join(missing)}.\n" if missing else ""
    sections = [section(record, folder, beside) for folder, record in found]
    write_text(page, "\n".join([HEAD, verdicts(found) + rest, *sections]))
    say(f"{page}: {len(found)} studies" + (f", without {', '.join(missing)}" if missing else ""))


def full_studies(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and study.json of every study that was run in full.

    Args:
        root: folder with one folder per study.

    Raises:
        ValueError: a file is damaged.
    """
    found = []
    for path in sorted(root.glob("*/study.json")):
        record = read_json(path, "study.json that symerge study")
        if not isinstance(record, dict) or "verdict" not in record:
            raise ValueError(f"{path} is no study.json; run the study again with --resume.")
        if record["quick"]:
            say(f"{path.parent} is a --quick study: left out.")
        else:
            found.append((path.parent, record))
    return found


def verdicts(found: list[tuple[Path, dict[str, Any]]]) -> str:
    """The table on top of the page.

    Args:
        found: folder and study.json of each study.
    """
    lines = [["study", "claim", "paper", "ours", "verdict", "cost", "command"]]
    for folder, record in found:
        lines.append(
            [
                f"[{record['name']}](#{anchor(record)})",
                record["claim"],
                record["paper"] or UNDEFINED,
                record["verdict"]["reason"],
                f"**{record['verdict']['outcome']}**",
                cost(folder),
                f"`{record['command']}`",
            ]
        )
    return markdown(lines, words=len(lines[0]))


def section(record: Mapping[str, Any], folder: Path, beside: Path) -> str:
    """One study of the page.

    Args:
        record: content of study.json.
        folder: that holds it.
        beside: folder of plots and remarks.
    """
    kind = STUDIES[record["type"]]
    text = markdown_study(record, kind.shown, "##")
    name = record["name"]
    remarks = beside / f"{name}.md"
    said = f"\n{remarks.read_text('utf-8').strip()}\n" if remarks.exists() else ""
    return f"{text}{said}\n![{record['title']}]({beside.name}/{name}.png)\n{_costs(folder, beside, name)}"


def _costs(folder: Path, beside: Path, name: str) -> str:
    """What the rows of a study cost, where the study asks for it; else nothing."""
    if not (folder / COSTS_PLOT).exists():
        return ""
    table = markdown_costs(read_json(folder / "costs.json", COSTS_FILE))
    picture = f"![seconds and memory]({beside.name}/{name}-{COSTS_PLOT})"
    return f"\nWhat the method of each row cost, mean over seeds:\n\n{table}\n{picture}\n"


def anchor(record: Mapping[str, Any]) -> str:
    """The anchor that Markdown gives the heading of a study.

    Args:
        record: content of study.json.
    """
    heading = f"{record['title']}: {record['verdict']['outcome']}".lower()
    return "".join(sign for sign in heading if sign.isalnum() or sign in " -_").replace(" ", "-")


def cost(folder: Path) -> str:
    """Minutes of all runs of a study, and the device, as its costs.json has them.

    Args:
        folder: of the study.
    """
    path = folder / "costs.json"
    if not path.exists():
        return UNDEFINED
    found = read_json(path, COSTS_FILE)
    return f"{found['seconds'] / 60:.0f} min without experts, {found['device']}"
