"""The notebook runs from top to bottom, and the page people read is the script that is reviewed.

Where tour.py was changed, this makes the page again, pictures included:

    .venv/bin/python tests/notebooks/test_tour.py
"""

import pathlib

import jupytext
import nbclient
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
MOST_CELLS = 14


def executed(folder: pathlib.Path) -> nbformat.NotebookNode:
    """tour.py as a notebook, run in `folder`. Raises nbclient.exceptions.CellExecutionError."""
    notebook = jupytext.read(NOTEBOOKS / "tour.py")
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_script_and_page_say_the_same():
    page = nbformat.read(NOTEBOOKS / "tour.ipynb", nbformat.NO_CONVERT)
    nbformat.validate(page)
    assert sources(page) == sources(jupytext.read(NOTEBOOKS / "tour.py"))
    assert len(page.cells) <= MOST_CELLS
    assert not [output for cell in page.cells for output in cell.get("outputs", []) if output.output_type == "error"]


@pytest.mark.full
@pytest.mark.slow
def test_it_runs_and_shows_something_in_every_part(tmp_path):
    cells = [cell for cell in executed(tmp_path).cells if cell.cell_type == "code"]
    shown = [[kind for output in cell.outputs for kind in output.get("data", {})] for cell in cells]
    assert all("image/png" in kinds for kinds in shown[1:])
    assert "text/html" in shown[1], "the sound is missing"
    assert list(tmp_path.iterdir()) == []


if __name__ == "__main__":
    nbformat.write(executed(NOTEBOOKS), NOTEBOOKS / "tour.ipynb")
