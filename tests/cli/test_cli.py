"""The command line: what it writes, what it says, and how it ends."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import Result

import bayesunmix as bu
from bayesunmix import recipe as recipes

Call = Callable[..., Result]


def test_no_command_helps(call: Call) -> None:
    result = call()
    assert result.exit_code == 0
    for command in ("demo", "info", "fit", "compare", "report", "run", "models"):
        assert f"\n  {command} " in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bayesunmix.cli import main; main(['--help'], standalone_mode=False);"
        "sys.exit(' '.join({'jax', 'numpy', 'xarray', 'matplotlib', 'numpyro'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_module_is_the_command_line(image_file: Path) -> None:
    command = [sys.executable, "-m", "bayesunmix", "info", str(image_file.with_name("absent.nc"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "absent.nc: there is no such file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_info_names_axes_and_units(call: Call, image_file: Path) -> None:
    result = call("info", image_file)
    assert result.exit_code == 0
    assert "8 y (nm) × 8 x (nm) × 16 energy (eV), float64 in 10³ counts" in result.output


def test_models_lists_every_model_with_its_settings(call: Call) -> None:
    lines = call("models").output.splitlines()
    named = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    public = [getattr(bu.models, name) for name in bu.models.__all__]
    assert named == [recipes.kebab(cls.__name__) for cls in public if dataclasses.is_dataclass(cls)]
    assert any(line.startswith("    n_endmembers: int, required") for line in lines)


def test_fit_leaves_its_folder(fitted: tuple[Path, Result]) -> None:
    folder, result = fitted
    assert result.exit_code == 0, result.output
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["fit.nc", "recipe.toml", "report.html", "summary.json"]
    assert "scan.nc: 7 y (nm) × 8 x (nm) × 14 energy (eV)" in result.output
    assert "linear-unmixing, 2 endmembers, by SVI in" in result.output
    assert str(folder / "report.html") in result.output
    assert "\r" not in result.output


def test_summary_holds_plain_numbers(fitted: tuple[Path, Result]) -> None:
    summary = json.loads((fitted[0] / "summary.json").read_text())
    fit = bu.load_fit(fitted[0] / "fit.nc")
    assert summary["converged"] is True
    assert summary["pixels"] == 7 * 8
    assert summary["channels"] == 14
    assert summary["noise_scale"] == pytest.approx(float(fit.posterior["noise_scale"].mean()))
    assert sum(m["mean_abundance"] for m in summary["endmembers"]) == pytest.approx(1, abs=1e-3)
    assert summary["data_hash"] == fit.provenance["data_hash"]


def test_recipe_holds_what_was_done(fitted: tuple[Path, Result], image_file: Path) -> None:
    recipe = recipes.read(fitted[0] / "recipe.toml")
    fit = bu.load_fit(fitted[0] / "fit.nc")
    assert recipe.data == {
        "path": str(image_file),
        "crop": {"energy": [400.0, np.inf], "y": [-np.inf, 9.0]},
        "mask": "finite",
        "hash": fit.provenance["data_hash"],
    }
    assert recipe.model["n_endmembers"] == 2
    np.testing.assert_array_equal(recipe.model["endmember_scale"], fit.model.endmember_scale)
    assert recipe.method["name"] == "svi"
    assert recipe.seed == 0
    assert recipe.versions == fit.provenance["versions"]


def test_run_repeats_bit_for_bit(call: Call, fitted: tuple[Path, Result]) -> None:
    folder, _ = fitted
    result = call("run", folder / "recipe.toml")
    assert result.exit_code == 0, result.output
    assert "the posterior is the recorded one, bit for bit" in result.output
    again = folder.with_name("two-again")
    first, second = (bu.load_fit(f / "fit.nc").posterior for f in (folder, again))
    xr.testing.assert_identical(first, second)
    assert recipes.read(again / "recipe.toml") == recipes.read(folder / "recipe.toml")


def test_run_refuses_other_data(call: Call, fitted: tuple[Path, Result], image_file: Path, tmp_path: Path) -> None:
    image = xr.load_dataarray(image_file)
    image[5, 5, 10] += 1e-6
    image.to_netcdf(tmp_path / "scan.nc", engine="h5netcdf")
    recipe = recipes.read(fitted[0] / "recipe.toml")
    changed = dataclasses.replace(recipe, data=recipe.data | {"path": str(tmp_path / "scan.nc")})
    recipes.write(changed, tmp_path / "recipe.toml")
    result = call("run", tmp_path / "recipe.toml", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "no longer holds the data of the recipe" in result.stderr
    assert not (tmp_path / "out").exists()


def test_report_is_written_again(call: Call, fitted: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copy(fitted[0] / "fit.nc", tmp_path)
    result = call("report", tmp_path)
    assert result.exit_code == 0
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_compare_prefers_by_prediction(call: Call, fitted: tuple[Path, Result], tmp_path: Path) -> None:
    folder, _ = fitted
    shutil.copytree(folder, tmp_path / "copy")
    result = call("compare", folder, tmp_path / "copy")
    assert result.exit_code == 0
    assert "elpd" in result.output
    assert "are indistinguishable: prefer" in result.output
    assert call("compare", folder, tmp_path / "copy", "--criterion", "loo").exit_code == 0
    alone = call("compare", folder)
    assert alone.exit_code == 2
    assert "expected two different folders or more" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linear-mixing", "FILE", "-n", "2"], "there is no 'linear-mixing'; there are gaussian-mixture, "),
        (["linear-unmixing", "FILE", "-n", "2", "--set", "colour=red"], "has no setting colour; it has n_"),
        (["linear-unmixing", "FILE", "-n", "2", "--noise", "loud"], "noise: expected one of"),
        (["linear-unmixing", "FILE", "-n", "0"], "n_endmembers: expected"),
        (["linear-unmixing", "FILE"], "linear-unmixing needs n_endmembers"),
        (["linear-unmixing", "FILE", "-n", "99"], "n_endmembers=99 exceeds the 16 channels"),
        (["linear-unmixing", "FILE", "-n", "2", "--crop", "energy"], "expected DIM=LOW:HIGH"),
        (["linear-unmixing", "FILE", "-n", "2", "--crop", "z=1:2"], "cannot crop along 'z'"),
        (["linear-unmixing", "FILE", "-n", "2", "--dataset", "other"], "no data set called 'other'"),
        (["linear-unmixing", "FILE", "-n", "2", "--mask", "FILE"], "expected a mask of"),
        (["linear-unmixing", "nowhere.nc", "-n", "2"], "there is no such file"),
        (["linear-unmixing", "FILE", "-n", "two"], "'two' is not a valid integer"),
    ],
)
def test_bad_usage_ends_with_one_clear_line(
    call: Call, image_file: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    arguments = [str(image_file) if a == "FILE" else a for a in arguments]
    result = call("fit", *arguments, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_bad_data_end_with_one_clear_line(call: Call, image_file: Path, tmp_path: Path) -> None:
    image = xr.load_dataarray(image_file)
    image[0, 0, 0] = np.nan
    image.to_netcdf(tmp_path / "nan.nc", engine="h5netcdf")
    result = call("fit", "linear-unmixing", tmp_path / "nan.nc", "-n", 2, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "NaN" in result.stderr


def test_traceback_shows_where(call: Call) -> None:
    with pytest.raises(OSError, match="there is no such file"):
        call("--traceback", "info", "nowhere.nc")


@pytest.mark.parametrize("flaw", ["unconverged", "interrupted"])
def test_an_unusable_fit_is_kept_and_ends_with_status_1(
    call: Call,
    fitted: tuple[Path, Result],
    image_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flaw: str,
) -> None:
    good = bu.load_fit(fitted[0] / "fit.nc")
    verdict = "Not usable: the chains disagree (R-hat 1.7)."
    diagnostics = good.diagnostics.assign_attrs(converged=int(flaw == "interrupted"), verdict=verdict)
    flawed = dataclasses.replace(good, diagnostics=diagnostics, finished=flaw != "interrupted")
    monkeypatch.setattr(bu, "fit", lambda *args, **kwargs: flawed)
    result = call("fit", "linear-unmixing", image_file, "-n", 2, "-o", tmp_path)
    assert result.exit_code == 1
    assert verdict in result.stderr
    assert (tmp_path / "fit.nc").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["finished"] is (flaw == "unconverged")
    again = call("report", tmp_path)
    assert again.exit_code == 1 and verdict in again.stderr


def test_a_report_that_is_stopped_leaves_the_fit(
    call: Call, fitted: tuple[Path, Result], image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bu, "fit", lambda *args, **kwargs: bu.load_fit(fitted[0] / "fit.nc"))
    monkeypatch.setattr(importlib.import_module("bayesunmix.report.facts"), "gather", stopped)
    result = call("fit", "linear-unmixing", image_file, "-n", 2, "-o", tmp_path)
    assert result.exit_code == 130
    assert f"bayesunmix report {tmp_path}" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"fit.nc", "recipe.toml"}


def test_a_folder_that_cannot_be_written_is_said_before_the_fit(
    call: Call, image_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bu, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    result = call("fit", "linear-unmixing", image_file, "-n", 2, "-o", image_file / "out")
    assert result.exit_code == 2
    assert "is no folder that can be written to" in result.stderr


@pytest.mark.parametrize("error", [FloatingPointError("the curvature is not finite"), MemoryError("too large")])
def test_numbers_and_memory_that_give_out_are_no_unusable_fit(
    call: Call, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(bu, "fit", fails)
    result = call("fit", "linear-unmixing", image_file, "-n", 2, "-o", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {error}\n"


def test_ctrl_c_with_nothing_to_save(
    call: Call, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bu, "fit", stopped)
    result = call("fit", "linear-unmixing", image_file, "-n", 2, "-o", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "stopped before there was anything to save\n"


def test_the_next_command_compiles_nothing(tmp_path: Path, image_file: Path) -> None:
    """What one process has compiled is read by the next one, which adds nothing."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "caches"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    kept = []
    for folder in ("first", "second"):
        words = ["fit", "probabilistic-pca", image_file, "-n", 1, "-o", tmp_path / folder]
        command = [sys.executable, "-m", "bayesunmix", *map(str, words)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (tmp_path / folder / "fit.nc").exists(), ran.stderr
        programs = (tmp_path / "caches" / "bayesunmix").glob("*/*-cache")
        kept.append(sorted(path.name for path in programs))
    assert kept[0]
    assert kept[1] == kept[0]


def test_only_the_command_line_keeps_compiled_programs() -> None:
    code = """
import os, sys
import bayesunmix as bu
bu.models.LinearUnmixing
before = os.environ.get("JAX_COMPILATION_CACHE_DIR")
from bayesunmix.cli import main
main([], standalone_mode=False)
sys.exit(0 if before is None and os.environ["JAX_COMPILATION_CACHE_DIR"] else 1)
"""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
