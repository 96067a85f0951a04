"""Tables of what the workloads found."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Workload

HELD = " in 90 %"  # how scores end that are shares of true values in such intervals
PART = " ¹"  # behind names of those whose times are of a part of the work, scaled


def table(workload: Workload, found: dict[str, Any]) -> list[str]:
    """Markdown of one workload: a row a contender, medians over its turns, scores with their standard errors."""
    rows, names = found["rows"], [c.name for c in workload.contenders]
    of = {name: [row for row in rows if row["contender"] == name] for name in names}
    scores = list(dict.fromkeys(key for row in rows for key in row["scores"]))
    head = ["", "turns", "wall, s", "CPU, s", "first call, CPU s", "peak, MiB", "beyond data", *scores]
    rate = [f"{workload.rate} a second"] if workload.rate else []
    lines = [[*head, *rate, "the first row is faster by, wall", "CPU"]]
    for name in names:
        if not of[name]:
            continue
        wall = [row["wall"] for row in of[name]]
        cells = [
            name + PART * (of[name][0]["share"] < 1),
            str(len(wall)),
            number(np.median(wall)),
            number(np.median([row["cpu"] for row in of[name]])),
            number(of[name][0].get("cold_cpu", np.nan)),  # rows of old have wall time
            f"{max(row['peak'] for row in of[name]):.0f}",
            f"{max(row['peak'] - row['before'] for row in of[name]):.0f}",
            *(_with_error([row["scores"][key] for row in of[name] if key in row["scores"]]) for key in scores),
        ]
        if workload.rate:
            cells.append(number(np.median(rates(workload, of[name]))))
        both = [ratio(workload, of[names[0]], of[name], clock) for clock in ("wall", "cpu")]
        lines.append([*cells, *(["", ""] if name == names[0] else both)])
    machine, when = found["machine"], found["date"]
    text = [
        f"### {workload.title}",
        "",
        f"Size `{found['size']}`; {when}, {machine['processor']}, {machine['cores']} cores, {machine['memory']}; load "
        f"{min(row['load'] for row in rows):.1f} to {max(row['load'] for row in rows):.1f}; commit {found['commit']}.",
        "",
        *(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:])),
    ]
    notes = [f"{c.name}: {c.note}." for c in workload.contenders if c.note and of[c.name]]
    shares = [f"{name}: 1/{1 / of[name][0]['share']:.0f}" for name in names if of[name] and of[name][0]["share"] < 1]
    if shares:
        notes.append(f"{PART.strip()} Timed on a part of the work and scaled ({', '.join(shares)}).")
    if workload.why and min(len(r) for r in of.values() if r) < 5:
        notes.append(workload.why)
    notes += [f"Skipped: {name}, {why}." for name, why in found.get("skipped", {}).items()]
    cached = "programs kept from earlier processes" if found["cache"] else "no programs kept from earlier processes"
    notes.append(f"Versions: {', '.join(f'{name} {v}' for name, v in found['versions'].items())}; {cached}.")
    return [*text, "", " ".join(notes), ""]


def headlines(workload: Workload, found: dict[str, Any]) -> list[str]:
    """Rows of the short table: ours beside each other contender."""
    ours = [row for row in found["rows"] if row["contender"] == workload.contenders[0].name]
    lines = []
    for contender in workload.contenders[1:]:
        theirs = [row for row in found["rows"] if row["contender"] == contender.name]
        if not theirs or not ours or not contender.headline:
            continue
        seconds = number(np.median([row["wall"] for row in ours]))
        if workload.rate:
            spent = [number(np.median(rates(workload, rows))) + "/s" for rows in (ours, theirs)]
        else:
            spent = [seconds + " s", number(np.median([row["wall"] for row in theirs])) + " s"]
        both = " | ".join(ratio(workload, ours, theirs, clock) for clock in ("wall", "cpu"))
        told = f"{_error_of_both(workload, ours, theirs)} | {_held(ours)}"
        name = contender.name + PART * (theirs[0]["share"] < 1)
        lines.append(f"| {workload.title} | {spent[0]} | {name} | {spent[1]} | {both} | {told} | {found['date']} |")
    return lines


def _error_of_both(workload: Workload, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """The first score that both have, on average."""
    shared = [name for name in ours[0]["scores"] if name in theirs[0]["scores"] and name != workload.rate]
    if not shared:
        return ""
    means = [number(np.mean([row["scores"][shared[0]] for row in rows])) for rows in (ours, theirs)]
    return f"{shared[0]}: {' and '.join(means)}"


def _held(rows: list[dict[str, Any]]) -> str:
    """How many true values 90 % intervals hold, on average."""
    names = [name for name in rows[0]["scores"] if name.endswith(HELD)]
    return ", ".join(f"{n.removesuffix(HELD)} {np.mean([row['scores'][n] for row in rows]):.2f}" for n in names)


def rates(workload: Workload, rows: list[dict[str, Any]], clock: str = "wall") -> list[float]:
    """Of the score that counts, a second, in every turn."""
    return [row["scores"][workload.rate] / row[clock] for row in rows]


def ratio(workload: Workload, ours: list[dict[str, Any]], theirs: list[dict[str, Any]], clock: str = "wall") -> str:
    """How many times faster ours is: median and range over turns that both took."""
    if workload.rate:
        a, b = rates(workload, ours, clock), rates(workload, theirs, clock)
    else:
        a, b = [row[clock] for row in theirs], [row[clock] for row in ours]
    both = list(zip(a, b, strict=False)) or [(np.nan, np.nan)]
    found = np.array([x / y for x, y in both])
    if len(found) == 1:
        return f"{number(found[0])} x"
    return f"{number(np.median(found))} x ({number(found.min())} to {number(found.max())})"


def number(value: float) -> str:
    """Three figures, no exponent where it can be helped."""
    value = float(value)
    if not np.isfinite(value) or value == 0:
        return f"{value:.0f}" if value == 0 else "-"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"


def _with_error(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1 or np.ptp(values) == 0:
        return number(values[0])
    return f"{number(np.mean(values))} ± {number(np.std(values, ddof=1) / np.sqrt(len(values)))}"
