"""A small image in a file, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bayesunmix.cli import main
from bayesunmix.data.simulators import core_shell


@pytest.fixture(scope="session")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Result]]:
    def run(*arguments: Any) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    with pytest.MonkeyPatch.context() as patch:  # the command line sets these for its own process
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield run


@pytest.fixture(scope="session")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "scan.nc"
    core_shell((8, 8), 16)[0].to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture(scope="session")
def fitted(call: Callable[..., Result], image_file: Path) -> tuple[Path, Result]:
    """The folder of a fit of two endmembers to a part of the image, and what the command said."""
    folder = image_file.parent / "two"
    options = ["-n", 2, "--mask", "finite", "--crop", "energy=400:", "--crop", "y=:9", "-o", folder]
    return folder, call("fit", "linear-unmixing", image_file, *options)
