"""The example notebook, run from top to bottom against the installed package."""

import os
from pathlib import Path

import pytest
from support.torchrun import HANGS

PATH = Path(__file__).parents[2] / "examples" / "pretraining_bert.ipynb"


@pytest.mark.documents
def test_the_notebook_runs_and_its_encodings_have_the_chapters_shapes(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(PATH, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=HANGS, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(PATH.parents[1])})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "MLM loss 5." in printed or "MLM loss 6." in printed
    assert "(1, 6, 128) (1, 128)" in printed
    assert "(1, 10, 128) (1, 128)" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
