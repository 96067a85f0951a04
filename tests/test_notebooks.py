"""Every notebook runs from its first cell to its last, and is the same story in both of its files."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import bayesunmix as bu

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
LONG = {"1", "2", "6", "7"}  # minutes each, nearly all of it compiling several sizes of unmixing


def _marked(script: Path) -> Any:
    return pytest.param(script, marks=pytest.mark.slow) if script.name[0] in LONG else script


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[dict[str, Any], int]]:
    """Run all cells at the tiny budget: their variables, and how many figures they showed."""
    monkeypatch.setenv("BAYESUNMIX_NOTEBOOKS", "tiny")
    monkeypatch.delenv("BAYESUNMIX_FILE", raising=False)
    drawn: list[int] = []

    def show() -> None:
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            drawn.append(number)
        plt.close("all")

    def cells(script: Path) -> tuple[dict[str, Any], int]:
        drawn.clear()
        found: dict[str, Any] = {"__name__": "notebook"}
        exec(compile(script.read_text(encoding="utf-8"), script.name, "exec"), found)
        return found, len(drawn)

    monkeypatch.setattr(plt, "show", show)
    return cells


@pytest.mark.parametrize("script", [_marked(s) for s in SCRIPTS], ids=lambda s: s.stem)
def test_it_runs_at_a_tiny_budget(
    script: Path, run: Callable[[Path], tuple[dict[str, Any], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, drawn = run(script)
    assert drawn >= 3
    assert re.match(r"Runs on: \S+.* tiny budget\n", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_it_runs_on_a_file_with_names_of_its_own(
    script: Path,
    run: Callable[[Path], tuple[dict[str, Any], int]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    cells, _ = run(script)
    data = cells["data"] if "data" in cells else cells["image"]
    # What the notebook simulates, as another program would have stored it.
    named = data.rename(dict(zip(data.dims, ["height", "width", "Energy"][-data.ndim :], strict=True)))
    named.to_netcdf(tmp_path / "measured.nc", engine="h5netcdf")
    monkeypatch.setenv("BAYESUNMIX_FILE", str(tmp_path / "measured.nc"))
    loaded = []
    load = bu.load
    monkeypatch.setattr(bu, "load", lambda path: loaded.append(load(path)) or loaded[-1])
    _, drawn = run(script)
    assert drawn >= 2
    assert [one.dims for one in loaded] == [named.dims]


def test_there_are_seven_and_each_ends_with_its_doubts() -> None:
    assert [script.stem[0] for script in SCRIPTS] == list("1234567")
    for script in SCRIPTS:
        last = script.read_text(encoding="utf-8").rsplit("# %%", 1)[1]
        assert last.startswith(" [markdown]\n# ## What could be wrong\n"), script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_both_files_hold_the_same_cells(script: Path) -> None:
    pytest.importorskip("jupytext", reason="jupytext is not installed: pip install 'bayesunmix[test]'")
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    path = script.with_suffix(".ipynb")
    stored = json.loads(path.read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in stored["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in run.paired(script).cells], (
        "python notebooks/run.py --text"
    )
    assert path.stat().st_size < 300_000
