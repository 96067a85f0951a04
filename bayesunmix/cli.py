"""The command line. Heavy imports stay inside the commands, so that help answers at once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayesunmix import __version__

if TYPE_CHECKING:
    import xarray as xr

    from bayesunmix.report.facts import Facts

UNUSABLE, MISUSED = 1, 2
FOLDER = click.Path(path_type=Path, file_okay=False)


class _Concentration(click.ParamType):
    name = "number|learned"

    def convert(self, value, param, ctx):
        """A number, or the word ``learned``."""
        if value == "learned":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"expected a number or learned, got {value!r}", param, ctx)


CONCENTRATION = _Concentration()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Generative models with posteriors for spectrum images.

    \b
    Try it without a file:   bayesunmix demo
    See what a file holds:   bayesunmix info scan.hspy
    Unmix it:                bayesunmix fit linear-unmixing scan.hspy -n 4 -o out/
    """
    context.obj = traceback
    _keep_compiled_programs()
    context.with_resource(warnings.catch_warnings())
    warnings.showwarning = lambda message, *rest, **more: click.echo(f"warning: {message}", err=True)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command()
@click.option("-o", "--out", type=FOLDER, default="bayesunmix-demo", show_default=True)
@click.option("--quick", is_flag=True, help="One fit of a smaller image, nothing to compare it with.")
def demo(out: Path, quick: bool) -> None:
    """Unmix a simulated image, its truth shown beside the answer."""
    from bayesunmix.data.simulators import core_shell

    shape, n_channels = ((16, 16), 32) if quick else ((32, 32), 96)
    image, truth = core_shell(shape, n_channels)
    path = out / "image.nc"
    with _errors():
        import bayesunmix as bu

        out.mkdir(parents=True, exist_ok=True)
        image.to_netcdf(path, engine="h5netcdf")
        _say("data", f"simulated {_describe(image)}, noise {truth.attrs['snr_db']:g} dB below the signal")
        fits = {}
        for n in (3,) if quick else (2, 3):
            fits[f"n_endmembers={n}"] = _fit(bu.models.LinearUnmixing(n_endmembers=n), image, bu.SVI())
    table = None
    if len(fits) > 1:
        table = bu.compare(fits)
        click.echo(_table(table))
        _say("compare", table.attrs["verdict"])
    fit = dataclasses.replace(fits["n_endmembers=3"], truth=truth)
    with _errors():
        _finish(fit, out, {"path": str(path.absolute())}, table=table)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """List the data sets in FILE with their shapes, axes and units."""
    with _errors():
        from bayesunmix.data import info as list_datasets

        found = list_datasets(file)
    for one in found:
        sizes = zip(one.shape, one.dims, strict=True)
        axes = " × ".join(_axis(n, dim, one.units.get(dim)) for n, dim in sizes)
        values = f" in {one.value_units}" if one.value_units else ""
        click.echo(f"{one.name or '(unnamed)'}: {axes}, {one.dtype}{values}")


@main.command(name="fit")
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=FOLDER, required=True, help="Folder for the results.")
@click.option("-n", "size", type=int, help="Number of endmembers, components or states.")
@click.option("--likelihood", help="Noise law: normal, poisson for counts, scaled-poisson for a camera's signal.")
@click.option("--endmember-support", help="nonnegative, or real for signed data.")
@click.option("--noise", help="isotropic, or diagonal for a level of its own in each channel.")
@click.option("--concentration", type=CONCENTRATION, help="Dirichlet concentration of the abundances, or `learned`.")
@click.option("--brightness", is_flag=True, default=None, help="Pixels differ in thickness, dose or illumination.")
@click.option("--set", "others", multiple=True, metavar="NAME=VALUE", help="Any other setting; see `models`.")
@click.option("--dataset", help="Which data set of the file; see `info`.")
@click.option("--crop", multiple=True, metavar="DIM=LOW:HIGH", help="Keep part of an axis, in its own units.")
@click.option("--mask", metavar="finite|FILE", help="Leave out pixels: not finite ones, or a file's zeros.")
@click.option("--method", type=click.Choice(["svi", "nuts", "gibbs"]), help="Default: what suits the model.")
@click.option("--seed", type=int, default=0, show_default=True)
def fit_command(
    model: str,
    file: Path,
    out: Path,
    size: int | None,
    others: tuple[str, ...],
    dataset: str | None,
    crop: tuple[str, ...],
    mask: str | None,
    method: str | None,
    seed: int,
    **named: Any,
) -> None:
    """Fit MODEL to FILE and report."""
    data: dict[str, Any] = {"path": str(file.absolute())}
    with _errors():
        from bayesunmix import recipe as recipes

        if crop:
            data["crop"] = recipes.parse_crop(crop)
        if dataset:
            data["dataset"] = dataset
        if mask:
            data["mask"] = mask if mask == "finite" else str(Path(mask).absolute())
        settings = {name: value for name, value in named.items() if value is not None}
        chosen = _model(model, size, settings | recipes.parse_settings(others))
        image, keep = _load(data)
        how = recipes.build({"name": method}, _methods()) if method else None
        _writable(out)
        fit = _fit(chosen, image, how, seed, keep)
        _finish(fit, out, data)


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--criterion", type=click.Choice(["waic", "loo"]), default="waic", show_default=True)
def compare(folders: tuple[Path, ...], criterion: str) -> None:
    """Compare the fits in FOLDERS by how well they predict."""
    with _errors():
        import bayesunmix as bu
        from bayesunmix import folder

        if len(set(folders)) < 2:
            raise ValueError("expected two different folders or more to compare")
        fits = {str(path): folder.read(path) for path in folders}
        table = bu.compare(fits, criterion=criterion)
    click.echo(_table(table))
    click.echo(table.attrs["verdict"])


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the report in FOLDER again, from the fit kept there."""
    with _errors():
        from bayesunmix import folder as folders

        fit = folders.read(folder)
        facts = folders.write_report(folder, fit)
    _verdict(facts)
    _say("written", str(folder / folders.REPORT))
    _exit_by(fit)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=FOLDER, help="Default: the recipe's folder with -again added.")
def run(recipe: Path, out: Path | None) -> None:
    """Repeat the fit that RECIPE describes, on the same data only."""
    with _errors():
        from bayesunmix import recipe as recipes
        from bayesunmix.data import data_hash

        plan = recipes.read(recipe)
        model = recipes.build(plan.model, _models())
        method = recipes.build(plan.method, _methods())
        data = {key: value for key, value in plan.data.items() if key != "hash"}
        image, keep = _load(data)
        found = data_hash(_units(image, keep))
        if found != plan.data["hash"]:
            raise ValueError(
                f"{data['path']} no longer holds the data of the recipe (hash {found[:12]} now, "
                f"{plan.data['hash'][:12]} then): restore the file, or fit anew with `bayesunmix fit`"
            )
        original = recipe.absolute().parent
        folder = out or original.with_name(original.name + "-again")
        _writable(folder)
        fit = _fit(model, image, method, plan.seed, keep)
    if plan.result.get("posterior_hash") == recipes.posterior_hash(fit.posterior):
        _say("repeat", "the posterior is the recorded one, bit for bit")
    else:
        now = fit.provenance["versions"]
        changed = [name for name, version in plan.versions.items() if now.get(name) != version]
        reason = f"other versions of {', '.join(changed)}" if changed else "another machine or device"
        _say("repeat", f"the posterior differs from the recorded one ({reason})")
    with _errors():
        _finish(fit, folder, data)


@main.command(name="models")
def list_models() -> None:
    """List the models and their settings."""
    import inspect

    for name, cls in _models().items():
        click.echo(f"{name}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
        for field in dataclasses.fields(cls):
            default = ", required" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            click.echo(f"    {field.name}: {field.type}{default}")


def _models() -> dict[str, type]:
    from bayesunmix import models
    from bayesunmix.recipe import choices

    return choices(getattr(models, name) for name in models.__all__)


def _methods() -> dict[str, type]:
    import bayesunmix as bu
    from bayesunmix.recipe import choices

    return choices([bu.SVI, bu.NUTS, bu.Gibbs])


def _model(name: str, size: int | None, settings: dict[str, Any]) -> Any:
    from bayesunmix.recipe import build

    classes = _models()
    if size is not None and name in classes:
        sized = next((f.name for f in dataclasses.fields(classes[name]) if f.name.startswith("n_")), None)
        if sized is None:
            raise ValueError(f"{name} has no size for -n to set")
        settings = {sized: size, **settings}
    return build({"name": name, **settings}, classes)


def _load(data: dict[str, Any]) -> tuple[Any, Any]:
    """The image of a recipe's data section, cropped, and its mask; or neighbour vectors with all that they bring."""
    from bayesunmix.data import load
    from bayesunmix.descriptors.vectors import read_vectors
    from bayesunmix.recipe import crop

    path = Path(data["path"])
    vectors = None if "dataset" in data else read_vectors(path)
    if vectors is None:
        image: Any = crop(load(path, data.get("dataset")), data.get("crop", {}))
        values = image
    elif "crop" in data:
        raise ValueError(f"{path} holds neighbour vectors, which have no axis to crop")
    else:
        image, values = vectors, vectors["vector"]
    _say("data", f"{path.name}: {_describe(values)}")
    mask = data.get("mask")
    if mask in (None, "finite"):
        return image, mask
    keep = load(mask)
    if keep.shape != values.shape[:-1]:
        raise ValueError(f"{mask}: expected a mask of {values.shape[:-1]} pixels, got {keep.shape}")
    return image, keep.values != 0


def _units(image: Any, keep: Any) -> Any:
    """What a fit to the image, or to neighbour vectors, sees."""
    from bayesunmix.data import as_units
    from bayesunmix.descriptors.vectors import as_vectors

    if hasattr(image, "data_vars"):
        vectors = as_vectors(image, keep)
        image, keep = vectors.data, vectors.keep
    return as_units(image, mask=keep)


def _fit(model: Any, image: Any, method: Any, seed: int = 0, mask: Any = None) -> Any:
    import bayesunmix as bu
    from bayesunmix.recipe import kebab

    fit = bu.fit(model, image, method, mask=mask, seed=seed, progress=True)
    sizes = ", ".join(
        f"{getattr(model, n)} {n[2:]}" for n in vars(model) if n.startswith("n_") and getattr(model, n) is not None
    )
    took = f"{fit.provenance['wall_s']:.1f} s"
    _say("fit", f"{kebab(type(model).__name__)}, {sizes}, by {type(fit.method).__name__} in {took}")
    return fit


def _writable(out: Path) -> None:
    """Say now, and not after a long fit, that the results cannot be written."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PermissionError(f"{out}: {there} is no folder that can be written to; choose another with -o")


def _finish(fit: Any, out: Path, data: dict[str, Any], table: Any = None) -> None:
    """Write the folder, say what was found, and exit by the fit's own diagnostics."""
    from bayesunmix import folder

    folder.keep(out, fit, data)
    try:
        facts = folder.write_report(out, fit, table)
    except KeyboardInterrupt:
        click.echo(f"stopped; the fit is in {out}, and `bayesunmix report {out}` writes its report", err=True)
        sys.exit(130)
    _verdict(facts)
    _say("written", f"{out / folder.REPORT} (open it in a browser)")
    _say("", f"{folder.FIT}, {folder.SUMMARY} and {folder.RECIPE} beside it")
    _exit_by(fit)


def _exit_by(fit: Any) -> None:
    if not (fit.converged and fit.finished):
        click.echo(f"unusable: {fit.diagnostics.attrs['verdict']}", err=True)
        sys.exit(UNUSABLE)


def _verdict(facts: Facts) -> None:
    from bayesunmix.report.words import headline, verdict

    _say("verdict", headline(facts).text)
    for finding in verdict(facts):
        click.echo(f"          {'-' if finding.level == 'good' else '!'} {finding.text}")


def _say(step: str, text: str) -> None:
    click.echo(f"{step:<10}{text}")


def _describe(image: xr.DataArray) -> str:
    units = {dim: image.coords[dim].attrs.get("units") for dim in image.dims if dim in image.coords}
    return " × ".join(_axis(n, str(dim), units.get(dim)) for dim, n in image.sizes.items())


def _axis(size: int, dim: str, units: str | None) -> str:
    return f"{size} {dim} ({units})" if units else f"{size} {dim}"


def _table(table: Any) -> str:
    shown = table[["elpd", "se", "elpd_diff", "dse", "weight"]]
    return str(shown.to_string(float_format=lambda value: f"{value:,.2f}"))


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Bad input ends with one message and status 2; Ctrl-C with nothing to save, with status 130."""
    try:
        yield
    except (ValueError, TypeError, OSError, ArithmeticError, MemoryError) as error:
        if click.get_current_context().obj:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(MISUSED)
    except KeyboardInterrupt:
        click.echo("stopped before there was anything to save", err=True)
        sys.exit(130)


def _keep_compiled_programs() -> None:
    """Let JAX keep compiled programs between runs, for each kind of processor apart: they differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    kind = hashlib.sha256(processor.encode()).hexdigest()[:12]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "bayesunmix" / kind))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
