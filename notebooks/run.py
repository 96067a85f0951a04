"""Run the notebooks and write their .ipynb files: `python notebooks/run.py`, from the root of a checkout.

The .py files are what is edited. With names only those are run (`python notebooks/run.py 1_unmixing_an_eds_map`), with
`--text` none: their cells are copied. Outputs are kept where the file stays below 300 kB.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
LARGEST = 300_000  # bytes of an .ipynb in the repository


def paired(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, without outputs; cells are named by their place, so that the file is reproducible."""
    notebook = jupytext.read(script)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
    return notebook


def smaller(png: str) -> str:
    """A picture in 256 colours, spread over all that it has so that rare ones stay as they are; both as base64."""
    image, packed = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    fewer = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    fewer.save(packed, "png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with small pictures, and without progress bars, which show nothing once their kernel is gone."""
    widget = "application/vnd.jupyter.widget-view+json"
    for cell in notebook.cells:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if widget not in output.get("data", {})]
        for data in (output.data for output in cell.get("outputs", []) if "image/png" in output.get("data", {})):
            data["image/png"] = smaller(data["image/png"])
    notebook.metadata.pop("widgets", None)
    return notebook


def main(arguments: list[str]) -> None:
    text_only = "--text" in arguments
    names = [a for a in arguments if not a.startswith("--")]
    scripts = [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("[0-9]*.py"))
    for script in scripts:
        notebook, started = paired(script), time.perf_counter()
        if not text_only:
            where = {"metadata": {"path": str(FOLDER)}}
            NotebookClient(notebook, timeout=3600, resources=where, record_timing=False).execute()
            notebook = tidied(notebook)
        if len(nbformat.writes(notebook)) > LARGEST:
            notebook = paired(script)
        nbformat.write(notebook, script.with_suffix(".ipynb"))
        size = script.with_suffix(".ipynb").stat().st_size
        print(f"{script.stem}: {time.perf_counter() - started:.0f} s, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
