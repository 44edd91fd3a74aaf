"""docs/methods.md names every registered method, and says of each what the code says."""

import inspect
import re
from pathlib import Path

import pytest

from symerge_dense.pipeline.comparison.methods import EXPERTS, JOINT
from symerge_dense.pipeline.comparison.model_pool import STATISTICS_IMAGES
from symerge_dense.pipeline.comparison.scoring import LABELLED_IMAGES
from symerge_dense.pipeline.comparison.tuning import IMAGES, knob_of
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text("utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for cells in (
        [cell.strip() for cell in line.strip("| ").split("|")] for line in TEXT.splitlines() if line.startswith("| `")
    )
    if not cells[0].startswith("`--")
}


def papers(module):
    return set(re.findall(r"https://arxiv\.org/abs/[\d.]+\d", inspect.getdoc(module) or ""))


def test_every_registered_method_is_named_and_no_other():
    assert set(ROWS) == {*MERGERS, *ADAPTIVE_METHODS}
    assert f"`{EXPERTS}`" in TEXT and f"`{JOINT}`" in TEXT


@pytest.mark.parametrize("name", list(MERGERS))
def test_static_methods_have_the_options_data_and_paper_of_the_code(name):
    kind, (_, paper, data, tensors, options, _) = MERGERS[name], ROWS[name]
    named = [option.strip("* ") for option in options.split(",") if option not in ("–", " ...")]
    known = list(inspect.signature(kind).parameters)
    assert named == known[: len(named)] and (named == known or options.endswith("..."))
    assert re.findall(r"\*\*(\w+)\*\*", options) == ([knob_of(kind)] if knob_of(kind) else [])
    assert (data == f"{STATISTICS_IMAGES} images") == bool(kind().needs)
    assert (tensors == "matrices") == ("conv" in known)
    assert set(re.findall(r"\((https.*?)\)", paper)) <= papers(inspect.getmodule(kind))


@pytest.mark.parametrize("name", list(ADAPTIVE_METHODS))
def test_adaptive_methods_have_the_paper_of_the_code(name):
    linked = re.findall(r"\((https.*?)\)", ROWS[name][1])
    assert linked in ([], [ADAPTIVE_METHODS[name].paper])
    assert linked or ROWS[name][1] in ("ablation", "control")


def test_options_and_numbers_are_those_of_the_command():
    commands = ROOT / "symerge_dense" / "commands"
    compare, merge, pack = ((commands / f"{name}.py").read_text("utf-8") for name in ("compare", "merge", "pack"))
    first, plain = TEXT.split("Merging plain checkpoints")
    plain, packed = plain.split("### Experts in few bits")
    packed, adaptive = packed.split("## Adaptive methods")
    for tool, part in ((compare, first), (merge, plain + adaptive), (pack, packed)):
        for option in re.findall(r"`(--[\w-]+)", part):
            assert f'"{option}"' in tool
    assert f"on {IMAGES} unlabelled images" in TEXT and f"up to {LABELLED_IMAGES} images" in TEXT
