"""Rows of the tables on criticism, kept as they are found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path


class Kept:
    """Rows of a run, by name, each written as soon as it is there; every process has a file of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        apart = ("out", "runs", "rights", "count", "heldout", "faults", "share")
        self._settings = json.dumps({key: value for key, value in vars(args).items() if key not in apart})
        self._mine, self._of = args.share
        args.out.mkdir(exist_ok=True)
        stem = f"criticism_{args.what}_rows"
        self._path = args.out / (f"{stem}.jsonl" if self._of == 1 else f"{stem}_{self._mine}of{self._of}.jsonl")
        self._rows: dict[str, dict] = {}
        for path in sorted(args.out.glob(f"{stem}*.jsonl")):
            self._rows |= self._read(path)
        if self._of and not self._read(self._path):
            self._path.write_text(self._settings + "\n")

    def _read(self, path: Path) -> dict[str, dict]:
        """What an earlier run with these settings has found; a last line that was cut off is left out."""
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in lines[1:] if line.endswith("]")]
        return dict(json.loads(line) for line in whole) if lines and lines[0] == self._settings else {}

    def row(self, name: str, number: int, make: Callable[[], dict]) -> dict | None:
        """The row of that name, made unless an earlier run has it or another process has this number."""
        if name not in self._rows and self._of and number % self._of == self._mine:
            self._rows[name] = make()
            print(name, self._rows[name], flush=True)
            with self._path.open("a") as file:
                file.write(json.dumps([name, self._rows[name]]) + "\n")
        return self._rows.get(name)
