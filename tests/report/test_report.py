"""The report needs nothing but itself, says what it should, and lets no text become markup."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr

import bayesunmix as bu

SECTIONS = ["maps", "endmembers", "fit", "uncertainty", "diagnostics", "priors", "doubts", "provenance"]


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def path(hostile_fit: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bu.report(hostile_fit, tmp_path_factory.mktemp("report") / "new" / "report.html")


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path)


def test_it_is_one_file_of_moderate_size(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert 50_000 < path.stat().st_size < 5_000_000


def test_it_asks_the_network_for_nothing(page: Page) -> None:
    fetching = ("src", "href", "action", "srcset")
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in fetching]
    assert links
    assert all(link and link.startswith(("data:", "#")) for link in links)
    assert "@import" not in page.source
    assert "url(" not in page.source
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


def test_texts_from_the_file_stay_texts(page: Page, hostile_fit: Any) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "iframe", "object"})
    assert [attrs.get("id") for attrs in page.all("script")] == ["explorer-data", None]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert hostile_fit.data.name in page.text
    assert "(</script><b>shell</b>)" in page.text


def test_sections_come_in_order_and_links_meet_them(page: Page) -> None:
    assert [attrs["id"] for attrs in page.all("section")] == SECTIONS
    targets = [attrs["href"] for attrs in page.all("a")]
    assert targets == [f"#{name}" for name in SECTIONS]


def test_every_picture_is_inside_and_described(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 6
    for picture in pictures:
        assert (picture["src"] or "").startswith("data:image/png;base64,")
        assert len(picture["alt"] or "") > 20


def test_priors_provenance_and_verdict_are_there(page: Page, hostile_fit: Any) -> None:
    for line in hostile_fit.model.describe().splitlines():
        assert line in page.text
    assert hostile_fit.provenance["data_hash"] in page.text
    assert hostile_fit.diagnostics.attrs["verdict"] in page.text
    assert "The truth is known here" in page.text
    assert "What could be wrong" in page.text


def test_without_truth_none_is_claimed(hostile_fit: Any, tmp_path: Path) -> None:
    page = Page(bu.report(dataclasses.replace(hostile_fit, truth=None), tmp_path / "r.html"))
    assert "truth" not in page.text.lower()


def test_a_comparison_gets_its_section(hostile_fit: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"elpd_diff": [0.0, 40.0], "dse": [0.0, 9.0]}, index=["<i>three</i>", "two"])
    table.attrs.update(preferred="<i>three</i>", verdict="Prefer <i>three</i>.")
    page = Page(bu.report(hostile_fit, tmp_path / "r.html", table=table))
    assert "comparison" in [attrs["id"] for attrs in page.all("section")]
    assert "Prefer <i>three</i>." in page.text


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        ({"finished": False}, "Stopped early: do not use these numbers yet."),
        (
            {"diagnostics": xr.Dataset(attrs={"converged": 0, "verdict": "Too narrow."})},
            "The fit failed its own diagnostics: do not use these numbers yet.",
        ),
    ],
)
def test_a_fit_that_failed_says_so_first(
    hostile_fit: Any, tmp_path: Path, change: dict[str, Any], headline: str
) -> None:
    page = Page(bu.report(dataclasses.replace(hostile_fit, **change), tmp_path / "r.html"))
    first = next(attrs for attrs in page.all("p") if "headline" in (attrs.get("class") or ""))
    assert first["class"] == "headline bad"
    assert headline in page.text
