"""Every other format, through RosettaSciIO where it is installed (the ``io`` extra)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bayesunmix.data.axes import Axis, assemble, quantity_and_units, text, uniform
from bayesunmix.data.entry import Entry, LoadError, content

_OWN = ".hspy .nc .npy .npz .mat .hdr (ENVI) .h5 .hdf5 .hf5"


def read(path: Path) -> list[Entry]:
    """Every signal that RosettaSciIO finds in a file; lazy (dask arrays) where its reader is.

    Where several of its readers share the file's extension, the first one that succeeds is used.
    """
    kind = path.suffix or "(no extension)"
    try:
        from rsciio import IO_PLUGINS
    except ImportError as error:
        raise LoadError(
            f"{path}: files of type {kind!r} are read through RosettaSciIO, which is not installed: "
            f"pip install 'bayesunmix[io]'. Without it, these are read: {_OWN}."
        ) from error
    suffix = path.suffix.lower().lstrip(".")
    readers = [p["api"] for p in IO_PLUGINS if suffix in {e.lower() for e in p["file_extensions"]}]
    if not readers:
        raise LoadError(
            f"{path}: no reader knows the file type {kind!r}; it is {content(path)}. "
            f"These are read: {_OWN}, and the formats listed at https://hyperspy.org/rosettasciio."
        )
    failures = []
    for api in readers:
        try:
            signals = _signals(api, path)
        except Exception as error:  # parsers of foreign bytes fail in every way there is
            failures.append(f"{api.removeprefix('rsciio.')}: {type(error).__name__}: {error}")
        else:
            if signals:
                return _entries(signals)
            failures.append(f"{api.removeprefix('rsciio.')}: no signal in it")
    raise LoadError(
        f"{path}: expected a file of type {kind!r}, found {content(path)}, {path.stat().st_size} bytes. "
        f"RosettaSciIO says: {'; '.join(failures)}."
    )


def _signals(api: str, path: Path) -> list[dict[str, Any]]:
    reader = import_module(api).file_reader
    try:
        return reader(str(path), lazy=True)
    except NotImplementedError:
        return reader(str(path), lazy=False)


def _entries(signals: list[dict[str, Any]]) -> list[Entry]:
    """Data sets are called by their title, and by title and number where several share one."""
    titles = [text(s.get("metadata", {}).get("General", {}).get("title", "")) or "signal" for s in signals]
    names = [
        f"{title} ({titles[:i].count(title) + 1})" if titles.count(title) > 1 else title
        for i, title in enumerate(titles)
    ]
    return [signal_entry(*row) for row in zip(signals, titles, names, strict=True)]


def signal_entry(signal: dict[str, Any], title: str, name: str) -> Entry:
    """A signal as RosettaSciIO describes it: ``data``, ``metadata``, and ``axes`` in the order of the array."""
    metadata = signal.get("metadata", {})
    quantity, units = quantity_and_units(text(metadata.get("Signal", {}).get("quantity", "")))
    attrs = {
        "units": units,
        "long_name": quantity,
        "signal_type": text(metadata.get("Signal", {}).get("signal_type", "")),
        "original_filename": text(metadata.get("General", {}).get("original_filename", "")),
        "dataset": name,
    }
    axes = [_axis(axis) for axis in signal["axes"]]
    return Entry(name, assemble(signal["data"], axes, name=title, attrs=attrs))


def _axis(said: dict[str, Any]) -> Axis:
    if "axis" in said:
        values = np.asarray(said["axis"])
    else:
        values = uniform(int(said["size"]), said.get("scale", 1.0), said.get("offset", 0.0))
    name, units = text(said.get("name", "")), text(said.get("units", ""))
    return Axis(name, values, units, bool(said.get("navigate", False)))
