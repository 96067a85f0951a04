"""Workloads side by side with other packages; tables and numbers go to benchmarks/results/.

    python -m benchmarks --list
    python -m benchmarks                       # every workload at full size: hours
    python -m benchmarks --short               # at sizes that take minutes in all, what says something there
    python -m benchmarks abundances components --repeats 7
    python -m benchmarks --readme              # put the current table of full sizes into the README

The other packages come with ``python -m pip install -e '.[bench]'``; one that is missing is skipped, and the table says
so. A run that was stopped goes on where it was, as long as the package is the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import bayesunmix
from benchmarks import harness, report

HERE = Path(__file__).parent
PACKAGES = ("bayesunmix", "jax", "jaxlib", "numpyro", "numpy", "scipy", "scikit-learn", "hmmlearn", "dynamax",
            "pysptools", "hyperspy", "pymc", "nutpie")  # fmt: skip
NAMES = ("abundances", "samplers", "unmixing", "unmixing_large", "counts", "criticism", "cost_of_a_step", "components",
         "classes", "classes_large", "classes_overlap", "chains_batch", "chains_long")  # fmt: skip


def commit() -> str:
    """The commit of the package that runs, marked where the package (not its results) was changed since."""

    def git(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", HERE.parent, *command], capture_output=True, text=True)

    found = git("describe", "--always").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", bayesunmix.__name__).returncode == 1
    return found + "-dirty" * changed if found else "not in a repository"


def machine() -> dict[str, Any]:
    """What class of machine this is."""
    processor, memory = platform.processor() or platform.machine(), "unknown memory"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        memory = f"{size:.0f} GiB"
    except (OSError, StopIteration, ValueError):
        pass
    return {"processor": processor, "cores": len(os.sched_getaffinity(0)), "memory": memory,
            "platform": platform.platform(), "python": platform.python_version()}  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that take part."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def measure(name: str, kind: str, repeats: int | None, only: str, out: Path) -> None:
    """Run one workload and keep what it finds."""
    workload = harness.load(name)
    size = workload.sizes[kind]
    path = out / f"benchmark_{kind}_{name}.json"
    start = {"workload": name, "size": size, "commit": commit(), "machine": machine()}
    found = json.loads(path.read_text()) if path.exists() else {}
    if {key: found.get(key) for key in start} != start or start["commit"].endswith("-dirty"):
        found = {**start, "rows": []}
    before, rows = len(found["rows"]), found["rows"]
    today = {"date": datetime.date.today().isoformat(), "versions": versions(),
             "cache": "JAX_COMPILATION_CACHE_DIR" in os.environ}  # fmt: skip

    def keep() -> None:
        path.write_text(json.dumps(found | today, indent=1) + "\n")

    print(f"{name}: {workload.title}, {size}", flush=True)
    found["skipped"] = harness.run(name, size, repeats or workload.repeats, rows, keep, only)
    for who, why in found["skipped"].items():
        print(f"  skipped: {who}, {why}", flush=True)
    if len(rows) > before:  # what was complete keeps its date
        keep()
    write(kind, out)


def write(kind: str, out: Path) -> None:
    """The tables of all workloads that have been run at these sizes."""
    command = "python -m benchmarks" + " --short" * (kind == "short")
    lines = [
        f"Workloads at their {kind} size: `{command}`. Medians over turns; scores are means with standard errors "
        "between turns, which have data of their own. Wall and CPU times are of warm calls; the first call includes "
        "imports of the contender and compiling (rows older than this column show a dash). Peak is of the contender's "
        "process; what it holds beyond interpreter and data is beside it.",
        "",
    ]
    for name in NAMES:
        path = out / f"benchmark_{kind}_{name}.json"
        if path.exists():
            lines += report.table(harness.load(name), json.loads(path.read_text()))
    (out / f"benchmark_{kind}.md").write_text("\n".join(lines))


def into_readme(out: Path, readme: Path) -> None:
    """Replace the table between the README's marks by that of the full sizes."""
    rows, places, loads = [], set(), [0.0]
    for name in NAMES:
        path = out / f"benchmark_full_{name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if found and (told := report.headlines(harness.load(name), found)):
            rows += told
            places.add("{processor}, {cores} cores, {memory}".format(**found["machine"]))
            loads += [row["load"] for row in found["rows"]]
    lines = [
        "<!-- benchmark -->",
        "| workload | bayesunmix | other package | takes | bayesunmix is faster by, wall | CPU | scores of both "
        "| our 90 % intervals hold | measured |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Machines: {'; '.join(sorted(places))}; load up to {max(loads):.0f}."
        + f"{report.PART} Timed on a part of the work and scaled." * any(report.PART in row for row in rows),
        "<!-- end -->",
    ]
    text = "\n".join(lines)
    readme.write_text(re.sub(r"<!-- benchmark -->.*?<!-- end -->", lambda _: text, readme.read_text(), flags=re.S))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help="all when none is named")
    parser.add_argument("--short", action="store_true", help="small sizes: minutes in all")
    parser.add_argument("--repeats", type=int, help=f"turns; default {harness.REPEATS}")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders with this in their name")
    parser.add_argument("--list", action="store_true", help="names and titles")
    parser.add_argument("--readme", action="store_true", help="put the table of full sizes into the README")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if args.list:
        for name in NAMES:
            print(f"{name}: {harness.load(name).title}")
        return
    if args.readme:
        into_readme(args.out, HERE.parent / "README.md")
        return
    kind = "short" if args.short else "full"
    known = [name for name in NAMES if kind in harness.load(name).sizes]
    if unknown := set(args.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: only at full size, without --short")
    args.out.mkdir(exist_ok=True)
    print(f"bayesunmix {bayesunmix.__version__}, {commit()}", flush=True)
    for name in args.names or known:
        measure(name, kind, args.repeats, args.only, args.out)


if __name__ == "__main__":
    main()
