"""Tables of the benchmarks of probabilistic PCA, and what is kept of every data set."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import bayesunmix as bu

RESULTS = Path(__file__).parent / "results"


def image_of(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("y", "x", "energy"))


def version() -> str:
    """Version and commit of the package that runs."""
    found = subprocess.run(
        ["git", "-C", Path(__file__).parent, "describe", "--always"], capture_output=True, text=True
    ).stdout.strip()
    return f"version {bu.__version__} ({found or 'not in a repository'})"


def write(stem: str, command: str, lines: list[str]) -> None:
    """Print a table and keep it."""
    lines = [f"`python benchmarks/pca.py {command}`, {version()}", "", *lines]
    print("\n".join(lines), flush=True)
    (RESULTS / f"pca_{stem}.md").write_text("\n".join(lines) + "\n")


class Kept:
    """What was found of each data set, by its seed or name, in a file that grows."""

    def __init__(self, stem: str):
        self.path = RESULTS / f"pca_{stem}.json"
        self.rows: dict[str, Any] = self._written()

    def _written(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, seed: int | str, row: Any) -> None:
        self.rows = {**self._written(), str(seed): row}  # another run may have added its own
        part = self.path.with_suffix(".part")  # whole at any moment: a run may be stopped
        part.write_text(json.dumps(self.rows) + "\n")
        part.replace(self.path)


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
