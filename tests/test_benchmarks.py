"""The harness of the benchmarks, on work that takes no time; some of the workloads on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import harness, report, workloads
from benchmarks.__main__ import NAMES

SIZE = {"size": 100}


@pytest.fixture(scope="module")
def found() -> dict:
    rows: list[dict] = []
    kept: list[int] = []
    skipped = harness.run("toy.work", SIZE, 3, rows, lambda: kept.append(len(rows)))
    assert kept == [1, 2, 3, 4, 5]
    machine = {"processor": "any", "cores": 2, "memory": "1 GiB"}
    known = {"size": SIZE, "machine": machine, "date": "today", "commit": "this", "versions": {"jax": "0.10.2"}}
    return {"rows": rows, "skipped": skipped, "cache": False, **known}


def test_contenders_take_turns_on_the_same_data(found: dict) -> None:
    assert [(row["contender"], row["repeat"]) for row in found["rows"]] == [
        ("whole", 0), ("half", 0), ("whole", 1), ("half", 1), ("whole", 2),
    ]  # fmt: skip
    assert all(row["scores"] == {"error": 0.0} for row in found["rows"])
    assert all(row["wall"] > 0 and row["cpu"] >= 0 and row["cold_cpu"] >= 0 for row in found["rows"])
    assert {row["contender"]: row["share"] for row in found["rows"]} == {"whole": 1.0, "half": 0.5}


def test_who_is_not_installed_is_skipped_and_said(found: dict) -> None:
    assert found["skipped"] == {"gone": "not installed: No module named 'a_package_that_is_not_there'"}
    assert "Skipped: gone, not installed" in "\n".join(report.table(harness.load("toy.work"), found))


def test_a_run_goes_on_where_it_was(found: dict) -> None:
    rows = [row for row in found["rows"] if row["repeat"] < 1]
    harness.run("toy.work", SIZE, 2, rows, lambda: None)
    assert [(row["contender"], row["repeat"]) for row in rows[2:]] == [("whole", 1), ("half", 1)]


def test_ratios_are_medians_of_turns_that_both_took() -> None:
    workload = harness.load("toy.work")
    ours, theirs = ([{"wall": w, "scores": {"error": 6.0}} for w in walls] for walls in ((1, 2, 4), (10, 10)))
    assert report.ratio(workload, ours, theirs) == "7.50 x (5.00 to 10.0)"
    by_rate = harness.Workload(**{**vars(workload), "rate": "error"})
    assert report.ratio(by_rate, ours, theirs) == "7.50 x (5.00 to 10.0)"


def test_the_table_has_a_row_for_everyone_who_worked(found: dict) -> None:
    workload = harness.load("toy.work")
    lines = report.table(workload, found)
    rows = [line for line in lines if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["whole", "half ¹"]
    assert len({row.count("|") for row in rows}) == 1
    headlines = report.headlines(workload, found)
    assert len(headlines) == 1 and "| error: 0 and 0 |" in headlines[0]
    assert "Versions: jax 0.10.2; no programs kept" in lines[-2]


def test_the_short_table_says_what_intervals_hold(found: dict) -> None:
    rows = [{**row, "scores": {**row["scores"], "values in 90 %": 0.9}} for row in found["rows"]]
    assert report.headlines(harness.load("toy.work"), {**found, "rows": rows})[0].endswith("| values 0.90 | today |")


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1234.5, "1234"), (12.34, "12.3"), (0.01234, "0.0123")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert report.number(value) == text


def test_every_workload_can_be_run_by_name() -> None:
    found = {path.stem for path in Path(workloads.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(NAMES) == found


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_has_its_sizes_and_bayesunmix_first(name: str) -> None:
    workload = harness.load(name)
    assert set(workload.sizes) in ({"full", "short"}, {"full"})
    assert workload.contenders[0].name.startswith("bayesunmix")
    assert workload.repeats >= harness.REPEATS or workload.why


def test_one_command_runs_a_workload_and_writes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NAMES", ("toy.work",))
    monkeypatch.setattr(command, "commit", lambda: "abc")
    command.measure("toy.work", "full", 2, "", tmp_path)
    kept = json.loads((tmp_path / "benchmark_full_toy.work.json").read_text())
    assert len(kept["rows"]) == 4 and set(kept["skipped"]) == {"gone"} and kept["commit"] == "abc"
    assert kept["machine"]["cores"] >= 1 and kept["versions"]["jax"]
    assert "### Sums" in (tmp_path / "benchmark_full.md").read_text()
    kept["date"] = "yesterday"
    (tmp_path / "benchmark_full_toy.work.json").write_text(json.dumps(kept))
    command.measure("toy.work", "full", 2, "", tmp_path)  # complete: nothing is measured, so nothing changes
    assert json.loads((tmp_path / "benchmark_full_toy.work.json").read_text()) == kept
    readme = tmp_path / "README.md"
    readme.write_text("before <!-- benchmark -->yore<!-- end --> after")
    command.into_readme(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before <!-- benchmark -->") and text.endswith("<!-- end --> after") and "yore" not in text
    row = next(line for line in text.splitlines() if line.startswith("| Sums |"))
    assert "| half ¹ |" in row and row.endswith(f"| {kept['date']} |")
    assert f"{kept['machine']['cores']} cores" in text and "scaled." in text
    monkeypatch.setattr(command, "commit", lambda: "abc-dirty")
    for _ in range(2):  # a tree that was changed may be another one by now
        command.measure("toy.work", "full", 2, "whole", tmp_path)
        again = json.loads((tmp_path / "benchmark_full_toy.work.json").read_text())
        assert len(again["rows"]) == 2 and again["date"] != "yesterday"


def test_abundances_on_tiny_data_are_scored_beside_a_peer() -> None:
    workload = harness.load("abundances")
    problem = workload.problem(0, side=16, channels=24, n_endmembers=3)
    ours, theirs = (
        workload.score(problem, answer.answer if isinstance(answer, harness.Share) else answer)
        for name in ("bayesunmix", "scipy nnls")
        for answer in [next(c for c in workload.contenders if c.name == name).set_up(problem)(problem, 0)]
    )
    # Intervals hold .9 of 512 free numbers, with a standard error of .013; five of them.
    assert abs(ours["abundances in 90 %"] - 0.9) < 0.066
    assert 0 < ours["abundance rmse"] < theirs["abundance rmse"] < 0.2


def test_a_peer_on_tiny_data_is_scored() -> None:
    workload = harness.load("components")
    problem = workload.problem(0, side=16, channels=12, n_components=2)
    peer = next(c for c in workload.contenders if c.name == "scikit-learn PCA")
    found = workload.score(problem, peer.set_up(problem)(problem, 0))
    assert 0 < found["subspace angle, °"] < 20
    random = np.random.default_rng(5).normal(size=(2, 12))
    assert workload.score(problem, (random, None))["subspace angle, °"] > 30
