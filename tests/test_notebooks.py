"""Every notebook runs from its first cell to its last, and is the same story in both of its files."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_it_runs_at_a_tiny_budget(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAYESUNMIX_NOTEBOOKS", "tiny")
    monkeypatch.delenv("BAYESUNMIX_FILE", raising=False)
    drawn: list[int] = []

    def show() -> None:
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            drawn.append(number)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    cells: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(script.read_text(encoding="utf-8"), script.name, "exec"), cells)
    assert len(drawn) >= 3
    assert re.match(r"Runs on: \S+.* tiny budget\n", capsys.readouterr().out)


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
