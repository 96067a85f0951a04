"""The README tells the truth: its commands are the ones that are run, its example works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

TEST_COMMAND = (
    "python3 -m venv .venv && . .venv/bin/activate && python -m pip install -e '.[test,io]' && "
    "python -m pytest -q -n 2 --dist loadfile"
)
DEMO_COMMAND = "python3 -m venv .venv && . .venv/bin/activate && python -m pip install . && bayesunmix demo"


def test_the_two_commands_are_there_each_in_a_block_of_its_own() -> None:
    commands = [text.strip() for language, text in BLOCKS if language == "bash"]
    assert commands[:2] == [DEMO_COMMAND, TEST_COMMAND]


def test_continuous_integration_takes_its_commands_from_the_readme() -> None:
    """The patterns that .ci/run looks for find the commands, once each."""
    script = (ROOT / ".ci" / "run").read_text()
    patterns = re.findall(r"from_readme '([^']+)'", script)
    found = [[line for line in README.splitlines() if re.search(pattern, line)] for pattern in patterns]
    assert found == [[TEST_COMMAND], [DEMO_COMMAND]]


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = (text for language, text in BLOCKS if language == "python")
    assert len(example.splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::FutureWarning:arviz", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout
    written = {path.name for path in tmp_path.iterdir()}
    assert written == set(re.findall(r'"([\w.]+\.(?:nc|html|png))"', example))


@pytest.mark.parametrize("image", re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
def test_pictures_are_in_the_repository(image: str) -> None:
    assert (ROOT / image).read_bytes().startswith(b"\x89PNG")
