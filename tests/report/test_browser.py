"""The pages in a real browser: silent console, no request, clicks that answer, nothing wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from browser import Browser, browser, chromium

import bayesunmix as bu


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


def components() -> bu.Fit:
    rng = np.random.default_rng(0)
    values = 4 + rng.normal(size=(8, 8, 1)) * np.sin(np.arange(12)) + 0.3 * rng.normal(size=(8, 8, 12))
    return bu.fit(bu.models.ProbabilisticPCA(2), xr.DataArray(values, dims=("y", "x", "energy")), progress=False)


def classes() -> bu.Fit:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2)) + 6 * (np.arange(60)[:, None] % 2)
    data = xr.DataArray(values, {"feature": ["a", "b"]}, ("atom", "feature"))
    return bu.fit(bu.models.GaussianMixture(2), data, progress=False)


@pytest.fixture(scope="module", params=["unmixing", "components", "classes", "hidden states"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if chromium() is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    family: Any = request.param
    if family == "unmixing":
        fit = request.getfixturevalue("hostile_fit")
    elif family == "hidden states":
        fit = request.getfixturevalue("hidden_chain")[0]
    else:
        fit = {"components": components, "classes": classes}[family]()
    return bu.report(fit, tmp_path_factory.mktemp("page") / "report.html")


def test_the_console_is_silent_and_nothing_is_asked_for(tab: Browser, page: Path) -> None:
    tab.open(page)
    tab.value("scrollTo(0, document.body.scrollHeight)")
    assert tab.said == []
    broken = "[...document.images].filter(one => !(one.complete && one.naturalWidth)).length"
    assert tab.value("document.images.length") >= 3
    assert tab.value(broken) == 0


def test_a_click_shows_another_spectrum(tab: Browser, page: Path) -> None:
    tab.open(page)
    for selector in ("#explorer-worst", "#explorer-typical"):
        tab.click(selector)
        assert "p-value" in tab.value("document.querySelector('#explorer-said').textContent")
    chosen = []
    for across in (0.08, 0.92):
        tab.click("#explorer-map", across, 0.5)
        chosen.append(tab.value("document.querySelector('#explorer').dataset.chosen"))
    assert chosen[0] != chosen[1]
    drawn = "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v))"
    assert tab.value(f"{drawn}(document.querySelector('#explorer-plot'))")
    assert tab.said == []


@pytest.mark.parametrize("width", [360, 800])
def test_a_narrow_screen_scrolls_only_down(tab: Browser, page: Path, width: int) -> None:
    tab.open(page, width=width)
    assert tab.value("document.documentElement.scrollWidth") <= width


def test_it_prints_on_pages(tab: Browser, page: Path) -> None:
    tab.open(page)
    printed = tab.call("Page.printToPDF", printBackground=True)["data"]
    assert len(printed) > 20_000
