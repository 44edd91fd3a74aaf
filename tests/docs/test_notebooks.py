"""The notebooks, run from top to bottom with tiny numbers in place of their parameters, and a smaller network."""

import os
from pathlib import Path

import nbformat
import pytest
from builders.prepared_python import NETWORK, with_smaller_network
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
TINY = {"IMAGES": 8, "EPOCHS": 1, "ROUNDS": 2, "METHODS": ["average", "ties", "symerge"]}
OPTIONS = (
    '"data.train.count"',
    ", ".join(f"{key!r}: {value!r}" for key, value in NETWORK.items()) + ', "data.train.count"',
)


def test_there_are_notebooks_of_each_kind():
    assert {path.stem for path in NOTEBOOKS} >= {"rooms_tour", "own_experts", "comparing_methods"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_printed(path, tmp_path, monkeypatch):
    """In an empty folder. A cell tagged 'parameters' is followed by tiny values, as papermill does it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook has a backend of its own
    notebook = nbformat.read(path, as_version=4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    given = [f"{name} = {value!r}" for name, value in TINY.items() if name in notebook.cells[place].source]
    assert given
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = with_smaller_network(cell.source).replace(*OPTIONS)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(given)))
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
