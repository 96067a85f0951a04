"""The repository keeps its shape: the doorway to the models, links to files, versions that agree."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

import bayesunmix

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bayesunmix"


def test_models_is_a_symlink_into_the_package() -> None:
    doorway = ROOT / "models"
    assert doorway.is_symlink(), "models must be a symlink, not a copy (git config core.symlinks true)"
    assert doorway.readlink() == Path("bayesunmix/models")
    assert (doorway / "__init__.py").samefile(PACKAGE / "models" / "__init__.py")


def test_git_archive_keeps_the_symlink() -> None:
    archive = subprocess.run(["git", "archive", "HEAD", "models"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"not a git checkout with a commit: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["models"]
    assert members["models"].issym()
    assert members["models"].linkname == "bayesunmix/models"


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    missing = [target for target in local if not (path.parent / target).exists()]
    assert not missing


def test_readme_links_the_files_of_the_models_not_the_symlink() -> None:
    text = (ROOT / "README.md").read_text()
    models = {p.name for p in (PACKAGE / "models").glob("*.py") if not p.name.startswith("_")}
    linked = set(re.findall(r"\]\(bayesunmix/models/(\w+\.py)\)", text))
    assert linked == models
    assert "](models" not in text, "hosts show a symlink as a one-line text file: link bayesunmix/models/..."


def test_versions_agree() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert citation[1] == bayesunmix.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == PACKAGE / "__init__.py"


def test_lower_bounds_are_the_ones_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "tests/constraints-lower.txt").read_text(), re.M))
    declared = project["dependencies"] + project["optional-dependencies"]["io"]
    for requirement in declared:
        match = re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
        assert match is not None, f"{requirement!r} has no lower bound"
        name, bound = match.groups()
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", pinned[name]), requirement
