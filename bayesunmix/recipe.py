"""What was done to which data, as a small file that repeats it: read, write, and the steps it names."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

_MISSING = (dataclasses.MISSING, dataclasses.MISSING)
HEADER = "# Written by bayesunmix. `bayesunmix run` on this file repeats the fit.\n\n"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A fit in plain values: everything that decides its numbers, and the hashes that prove it is the same.

    Attributes
    ----------
    data : dict
        ``path``, and where given ``dataset``, ``crop`` (dim to its two ends) and ``mask``; ``hash`` of what
        was fitted.
    model, method : dict
        ``name`` in kebab-case and the fields of the bound model and of the method that are not None.
    seed : int
        As given to ``bu.fit``.
    versions : dict
        Package to version.
    result : dict
        ``posterior_hash``, and whether the fit converged.
    """

    data: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any]
    seed: int
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    result: dict[str, Any] = dataclasses.field(default_factory=dict)


def write(recipe: Recipe, path: Path) -> None:
    """Write a recipe as TOML; floats keep every bit."""
    import tomli_w

    path.write_text(HEADER + tomli_w.dumps(dataclasses.asdict(recipe)), encoding="utf-8")


def read(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ValueError
        When the file is no recipe, with what is missing or unknown.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a recipe: {error}") from error
    fields = {field.name for field in dataclasses.fields(Recipe)}
    wrong = {"data", "model", "method", "seed"} - set(content) or set(content) - fields
    if wrong:
        raise ValueError(f"{path}: not a recipe: it lacks or should not have {', '.join(sorted(wrong))}")
    recipe = Recipe(**content)
    for part, needed in (("data", ("path", "hash")), ("model", ("name",)), ("method", ("name",))):
        section = getattr(recipe, part)
        if not isinstance(section, dict) or not set(needed) <= set(section):
            raise ValueError(f"{path}: not a recipe: [{part}] must hold {', '.join(needed)}")
    return recipe


def kebab(name: str) -> str:
    """``LinearUnmixing`` to ``linear-unmixing``, ``SVI`` to ``svi``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def choices(classes: Iterable[type]) -> dict[str, type]:
    """Kebab-case names to the dataclasses among `classes`."""
    return {kebab(cls.__name__): cls for cls in classes if dataclasses.is_dataclass(cls)}


def section(settings: Any) -> dict[str, Any]:
    """A frozen dataclass of settings as plain values that TOML can hold; what is None is left out."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    named = {"name": kebab(type(settings).__name__)}
    return named | {name: _plain(value) for name, value in values.items() if value is not None}


def build(values: Mapping[str, Any], classes: Mapping[str, type]) -> Any:
    """The dataclass that a section describes; lists become arrays again.

    Raises
    ------
    ValueError
        For an unknown name, an unknown setting, or one that is missing.
    """
    settings = dict(values)
    name = settings.pop("name")
    if name not in classes:
        raise ValueError(f"there is no {name!r}; there are {', '.join(classes)}")
    cls = classes[name]
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in settings and (field.default, field.default_factory) == _MISSING
    ]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return cls(**{key: np.asarray(v) if isinstance(v, list) else v for key, v in settings.items()})


def crop(image: xr.DataArray, ends: Mapping[str, Sequence[float]]) -> xr.DataArray:
    """Keep what lies between two ends of a dim, both included, in the coordinate's own units.

    Raises
    ------
    ValueError
        For a dim the image has not, or when nothing is left.
    """
    for dim, (low, high) in ends.items():
        if dim not in image.dims:
            raise ValueError(f"cannot crop along {dim!r}: the data have {', '.join(map(str, image.dims))}")
        centres = image.coords[dim].values if dim in image.coords else np.arange(image.sizes[dim])
        inside = (centres >= low) & (centres <= high)
        if not inside.any():
            first, last = centres[0], centres[-1]
            raise ValueError(f"cropping leaves nothing of {dim!r}, which runs from {first:g} to {last:g}")
        image = image.isel({dim: inside})
    return image


def parse_crop(texts: Iterable[str]) -> dict[str, list[float]]:
    """``["energy=700:1200", "y=:30"]`` to ends by dim.

    Raises
    ------
    ValueError
        For anything else.
    """
    ends: dict[str, list[float]] = {}
    for text in texts:
        match = re.fullmatch(r"(?P<dim>[^=]+)=(?P<low>[^:]*):(?P<high>[^:]*)", text)
        try:
            if match is None:
                raise ValueError
            ends[match["dim"].strip()] = [float(match["low"] or "-inf"), float(match["high"] or "inf")]
        except ValueError:
            raise ValueError(f"expected DIM=LOW:HIGH such as energy=700:1200, got {text!r}") from None
    return ends


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """``["brightness=true", "n=3"]`` to values, read as TOML does and as text where that fails.

    Raises
    ------
    ValueError
        For anything that is not ``NAME=VALUE``.
    """
    settings = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"expected NAME=VALUE, got {text!r}")
        try:
            settings[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[name] = value
    return settings


def posterior_hash(posterior: xr.Dataset) -> str:
    """SHA-256 of the names, shapes and exact values of the draws."""
    digest = hashlib.sha256()
    for name in sorted(map(str, posterior.data_vars)):
        values = np.ascontiguousarray(posterior[name].values)
        digest.update(f"{name} {values.shape} {values.dtype.str}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        return np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a recipe cannot hold {type(value).__name__}: use numbers, texts and arrays")
