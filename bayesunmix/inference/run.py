"""From a bound model and data to posterior draws: mode, then guide or sampler, then the diagnostics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix._keys import generator
from bayesunmix._memory import hand_back
from bayesunmix.align import assigned, match_labels, profiles
from bayesunmix.inference import diagnostics, importance, rules_check, sampler
from bayesunmix.inference.best_guide import Best, Leapt, judged_guide, leaps, reshaped_guide
from bayesunmix.inference.curvature import UnitCurvature, units_curvature
from bayesunmix.inference.guide import Guide
from bayesunmix.inference.guide_check import check_guide
from bayesunmix.inference.layered import stretched
from bayesunmix.inference.mode import Mode, find_mode, recentred
from bayesunmix.inference.overlapping import guide_of_all
from bayesunmix.inference.program import Array, Program, at_units, compile_model, unconstrain
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.sampled import Sampled, mode_of_all
from bayesunmix.inference.settings import FEWEST_DRAWS, NUTS, SVI
from bayesunmix.inference.simplex_draws import simplex_draws
from bayesunmix.inference.simplex_moves import Moves, Simplex, crowded, draw_mixes, simplex_at
from bayesunmix.inference.target import Data, as_device_data, constrain, place_of, values_at
from bayesunmix.inference.units import dividing, local_sites
from bayesunmix.inference.unitwise import check_unitwise
from bayesunmix.inference.view import in_view
from bayesunmix.inference.whole import Whole

_MOST_ROUNDS = 4  # of NUTS in place of a guide
_MOST_GRADIENTS = 40_000  # of a chain of it; a simplex with sharp walls takes some 10 000
_TOGETHER = 128  # draws of thousands of globals that are worked on at a time, so that they are held once
_OFFERED = 5  # moves for every draw of a chain: with half a move, errors were 1.3 times what its draws show
_MOST_PARTS = 8  # of units that stand for themselves beside a sample; with more a chain takes many hours
_LARGER = 4  # times as many units in a sample, where two of them do not agree
_MOST_UNITS = 2**15  # in such samples, or in place of them
_CROWDED = (
    "with as many channels as pixels noise lets the simplex of the endmembers grow until priors stop it: bin channels "
    "(data.coarsen), or fit more pixels"
)
_GIVEN_UP = "a part or class too many leaves such posteriors; take fewer, or ask for bu.NUTS()"


@dataclass(frozen=True, eq=False)
class Result:
    """Draws of the globals, named, and how they came about."""

    values: dict[str, np.ndarray]  # (chain, draw, ...)
    diagnostics: diagnostics.Diagnostics
    finished: bool


def infer(
    model: Any,
    y: np.ndarray,
    covariates: dict[str, Any],
    method: SVI | NUTS,
    key: jax.Array,
    progress: Progress,
) -> Result:
    """Run ``method`` on a bound model; call inside ``computing()``.

    Raises
    ------
    ValueError
        When the model has more globals than a dense covariance can hold.
    """
    n_units = len(y)
    adapts = getattr(model, "adapts_to", None) is not None
    model = model.adapted() if adapts else model
    program, numbers = compile_model(model, y, covariates)
    batch = method.batch if isinstance(method, SVI) else n_units
    may_sample = n_units > 2 * batch
    if not type(model).__module__.startswith("bayesunmix."):
        check_unitwise(program, numbers, y, covariates, sampled=may_sample)
    whole = None
    if may_sample and not local_sites(program, numbers, y, covariates):
        whole = Whole(program, numbers, y, covariates, batch)
        whole = whole if n_units > 2 * whole.size else None
    key_mode, key_method, key_check = jax.random.split(key, 3)
    start = model.initial(y) if hasattr(model, "initial") else {}
    relabel = _relabel(program, model)
    if whole is not None and isinstance(method, SVI):
        few = at_units(covariates, slice(2), n_units)

        def placed(values: dict[str, np.ndarray]) -> np.ndarray:
            return np.asarray(unconstrain(program, numbers, values, np.asarray(y[:2], jnp.result_type(float)), few))

        z = placed(start)
        sampled = mode_of_all(program, whole, z, key_mode, relabel, progress.note)
        view = in_view(program, model, sampled.mode) if adapts else None
        if view is not None:
            numbers = view.numbers
            whole, relabel = dataclasses.replace(whole, numbers=numbers), None
            z = placed(view.values)
            sampled = mode_of_all(program, whole, z, key_mode, relabel, progress.note)
        while not sampled.mode.contradicted:
            result = _by_guide_of_sample(program, whole, sampled, method, key_method, key_check, progress)
            if result is not None:
                return result
            del sampled  # while a larger one is made
            whole = dataclasses.replace(whole, parts=_LARGER * whole.parts)
            progress.note(f"two samples of units do not agree: {whole.parts * whole.size} units")
            sampled = mode_of_all(program, whole, z, key_mode, relabel, progress.note)
        starts = [start, model.initial(y[1::2])] if hasattr(model, "initial") else [start]
        matched = _matcher(program, model)
        mode, best = guide_of_all(program, whole, map(placed, starts), key_mode, relabel, matched, progress.note)
        return _by_best(program, mode, best, method, sampled.chosen, key_method, key_check, progress)
    data = as_device_data(program, numbers, y, covariates)
    z = place_of(program, start, data)
    index = np.arange(n_units)
    mode = find_mode(program, data, z, index, key_mode, relabel, progress.note)
    view = in_view(program, model, mode) if adapts else None
    if view is not None:
        data = data._replace(numbers=view.numbers)
        mode = find_mode(program, data, place_of(program, view.values, data), index, key_mode, None, progress.note)
    if isinstance(method, SVI):
        return _by_guide(program, mode, method, index, key_method, key_check, progress)
    return _by_sampler(program, mode, method, index, key_method, progress)


def _by_guide(program: Program, mode: Mode, method: SVI, index, key, key_check, progress: Progress) -> Result:
    """Draws by way of a Gaussian guide to all units."""
    leapt = leaps(program, mode, key, progress.step)
    if not (leapt.there or mode.data.others):
        result = _by_simplex(program, mode, index, leapt, method, key_check, progress)
        if result is not None:
            return result
    best = judged_guide(program, mode, leapt, method, mode.data, key, key_check, progress)
    best = reshaped_guide(program, mode, best, method, mode.data, key, key_check, progress).widened()
    return _by_best(program, mode, best, method, index, key, key_check, progress)


def _by_guide_of_sample(
    program: Program, whole: Whole, sampled: Sampled, method: SVI, key, key_check, progress: Progress
) -> Result | None:
    """Draws by way of a Gaussian guide to a sample of units, judged on another one.

    Where that fails it is one to all units, if they are not too many; None where samples are too small to agree, or to
    lead to the mode, and may be larger.
    """
    mode, chosen, judge = sampled
    leapt = leaps(program, mode, key, progress.step)
    best = judged_guide(program, mode, leapt, method, judge, key, key_check, progress)
    units = whole.parts * whole.size
    if best.faults and whole.n_units <= min(_MOST_PARTS * units, max(_MOST_UNITS, _MOST_PARTS * whole.size)):
        progress.note("the guide of a sample fails: all units")
        few_parts = dataclasses.replace(whole, batch=max(whole.batch, _MOST_UNITS // _MOST_PARTS))
        every, index = few_parts.every()
        start = np.asarray(best.guide.location if best.checked.finite else mode.z, np.float64)
        mode = find_mode(program, every, start, index, key_check, None, progress.note)
        return _by_guide(program, mode, method, index, key, key_check, progress)
    rough = bool(best.faults) and mode.found and not _own_faults(program, best, mode, key)
    if best.faults and (rough or not mode.found) and _LARGER * units <= _MOST_UNITS:
        return None
    best = reshaped_guide(program, mode, best, method, judge, key, key_check, progress)
    if rough and best.faults:  # a chain on one sample would not know
        best = best._replace(faults=[*best.faults, f"two samples of {units} units do not agree: raise SVI(batch=...)"])
        method = dataclasses.replace(method, sample_if_needed=False)
    hand_back()
    return _by_best(program, mode, best, method, chosen, key, key_check, progress)


def _own_faults(program: Program, best: Best, mode: Mode, key: jax.Array) -> list[str]:
    """What the data that a guide was fitted to say against it."""
    checked = check_guide(program, best.guide, mode.data, key)
    return checked.faults() + checked.bent()


def _by_best(program: Program, mode: Mode, best: Best, method: SVI, index, key, key_check, progress: Progress):
    """Draws of the best guide, weighted where it lacks a little; of NUTS where it fails."""
    fitted, elbo, settled, checked, faults = best
    data, doubts = mode.data, list[str]()
    axes = importance.directions(checked, fitted, faults)
    bounded = mode.alone and len(data.others) <= _MOST_PARTS
    # What another sample finds at fault weights on this one do not mend.
    if axes is not None and (not faults or (bounded and data.rest is None)):
        progress.note("weighting the guide's draws")
        key_points = jax.random.fold_in(key_check, 2**20)
        found = importance.weighted(program, fitted, axes, mode.data, method.draws, key_points, progress.step)
        if found.reliable():
            values = _named(program, found.draws[None], data)
            doubts = _off(program, mode, found.draws, index, key_check) + _doubts(program, data, values)
            if not doubts:
                worth = min(found.effective, float(method.draws))
                judged = diagnostics.of_weighted_guide(mode, elbo, checked, faults, found.shape, worth)
                return Result(values, judged, True)
    # Far from where a sample was corrected its parabola may open upwards, as chains would find out.
    worthwhile = bounded and checked.finite and not (mode.contradicted and data.rest is not None)
    if method.sample_if_needed and faults and worthwhile:
        progress.note("the posterior is not Gaussian: sampling it")
        own = recentred(program, fitted.location, mode.data, index, key_check, mode.more, progress.note)
        start = own._replace(z=fitted.location, factor=stretched(fitted.factor, fitted.stretch))
        sampled = _by_longer_chains(program, start, index, elbo, checked, faults, method, key_check, progress)
        why = [_CROWDED] if crowded(program, mode.data, mode.z) else []
        if sampled is not None:
            crowd = why if sampled.diagnostics.failures else []
            return dataclasses.replace(sampled, diagnostics=sampled.diagnostics.doubted(crowd))
        faults = [*faults, f"NUTS was given up after {_MOST_GRADIENTS} gradients a chain: {(why or [_GIVEN_UP])[0]}"]
    white = generator(jax.random.fold_in(key, 2**20)).standard_normal((method.draws, program.size))
    values = _named(program, _placed(fitted, white)[None], mode.data)
    judged = diagnostics.of_guide(mode, elbo, settled, checked, faults)
    doubts = list(dict.fromkeys([*doubts, *_doubts(program, data, values)]))
    return Result(values, judged.doubted(doubts), True)


def _placed(guide: Guide, white: np.ndarray) -> np.ndarray:
    """Points (n, size) of a guide in the place of the white ones."""
    for first in range(0, len(white), _TOGETHER):
        white[first : first + _TOGETHER] = guide.place(white[first : first + _TOGETHER])
    return white


def _doubts(program: Program, data: Data, values: dict[str, np.ndarray]) -> list[str]:
    """What the model knows against draws of a guide."""
    model = program.model(data.numbers)
    return model.doubts(values) if hasattr(model, "doubts") else []


def _by_simplex(
    program: Program, mode: Mode, index, leapt: Leapt, method: SVI, key: jax.Array, progress: Progress
) -> Result | None:
    """Draws whose simplex has a density of its own; None where there is none, or weights cannot be relied on."""
    simplex = simplex_at(program, mode.data, mode.z)
    if simplex is None:
        return None
    progress.note("drawing the simplex of the endmembers by itself")
    found = simplex_draws(program, mode, simplex, method.draws, jax.random.fold_in(key, 2**21), progress.step)
    if found is None or not found.reliable() or _off(program, mode, found.draws, index, key):
        return None
    worth = min(found.effective, float(method.draws))
    judged = diagnostics.of_simplex(mode, leapt.elbo, leapt.checked.faults(), found.shape, worth)
    return Result(_named(program, found.draws[None], mode.data), judged, True)


def _by_longer_chains(
    program: Program, start: Mode, index, elbo, checked, faults: list[str], method: SVI, key, progress: Progress
) -> Result | None:
    """NUTS in place of a guide that failed, run on where its chains do not agree yet; None where it takes too long."""
    settings = NUTS(draws=max(FEWEST_DRAWS, -(-method.draws // 2)), warmup=150, chains=2)
    moves = partial(_moves, simplex_at(program, start.data, start.z), settings)
    chains = sampler.sample(program, start, settings, key, progress.step, most=_MOST_GRADIENTS, moves=moves(key))
    if chains.exhausted:
        return None
    for more in range(1, _MOST_ROUNDS + 1):
        values = _named(program, chains.draws, start.data)
        judged = diagnostics.of_sampled_guide(start, elbo, checked, faults, values, chains.statistics)
        left = _MOST_GRADIENTS - chains.statistics["tree_steps"].sum(1).max()
        if more == _MOST_ROUNDS or not judged.nearly_mixed or not chains.finished or chains.exhausted or left < 0:
            break
        progress.note("the chains do not quite agree: sampling on")
        again = jax.random.fold_in(key, more)
        # With proposals of their own: what more rounds tell would else hang on those of the first.
        chains = sampler.sample(program, start, settings, again, progress.step, chains, left, moves(again))
    every = chains.draws.shape[1] // settings.draws or 1
    judged = judged.thinned(every).doubted(_off(program, start, chains.draws, index, key))
    return Result({n: v[:, ::every] for n, v in values.items()}, judged, chains.finished)


def _by_sampler(program: Program, mode: Mode, method: NUTS, index, key, progress: Progress) -> Result:
    moves = _moves(simplex_at(program, mode.data, mode.z), method, key)
    chains = sampler.sample(program, mode, method, key, progress.step, moves=moves)
    values = _named(program, chains.draws, mode.data)
    judged = diagnostics.of_sampler(mode, values, chains.statistics).doubted(
        _off(program, mode, chains.draws, index, key)
    )
    return Result(values, judged, chains.finished)


def _off(program: Program, mode: Mode, draws: np.ndarray, index, key) -> list[str]:
    """What integration makes wrong where draws (..., size) went, in words."""
    flat = draws.reshape(-1, program.size)
    off = rules_check.off_by(program, mode, flat, index, jax.random.fold_in(key, 2**22))
    return rules_check.doubts(off, program.size)


def _moves(simplex: Simplex | None, method: NUTS, key) -> list[Moves] | None:
    """For every chain its own, so that R-hat sees where they differ."""
    if simplex is None:
        return None
    offered = _OFFERED * method.draws
    return [draw_mixes(simplex, jax.random.fold_in(key, 2**20 + c), offered) for c in range(method.chains)]


def _named(program: Program, draws: np.ndarray, data: Data) -> dict[str, np.ndarray]:
    """Site values (chain, draw, ...) of unconstrained draws, some at a time, their labels matched."""
    chains, n_draws, size = draws.shape
    flat, count = draws.reshape(-1, size), chains * n_draws
    together, found = dividing(count, _TOGETHER), dict[str, np.ndarray]()
    for first in range(0, max(count, 1), together):  # once without any
        part = slice(first, first + together)
        for name, values in jax.device_get(constrain(program, flat[part], data.alone)).items():
            found.setdefault(name, np.empty((count, *values.shape[1:]), values.dtype))[part] = values
    named = {name: values.reshape(chains, n_draws, *values.shape[1:]) for name, values in found.items()}
    return match_labels(program.model(data.numbers), named)


def _relabel(program: Program, model: Any):
    """How to put the labels of a mode in canonical order; None for a model whose labels mean something."""
    label = getattr(model, "label", None)
    if label is None:
        return None

    def relabel(z: np.ndarray, parts: Iterable[Data]) -> np.ndarray:
        found, sizes = [], []
        for data in parts:
            found.append(_mean_latent(program, z, data._replace(rest=None)))
            sizes.append(len(data.y))
        order = model.order({model.latent: np.average(found, axis=0, weights=sizes)})
        return _reordered(program, model, z, order, data)

    return relabel


def _matcher(program: Program, model: Any):
    """How to put the labels of a place in the order that they have at another one."""
    label = getattr(model, "label", None)
    if label is None:
        return None

    def matched(z: np.ndarray, like: np.ndarray, data: Data) -> np.ndarray:
        both = [values_at(program, at, data.alone) for at in (like, z)]
        values = {name: np.stack([one[name] for one in both])[None] for name in both[0] if label in model.dims[name]}
        count = next(v.shape[2 + model.dims[n].index(label)] for n, v in values.items())
        first, second = profiles(values, model.dims, (label,), count)
        spread = np.concatenate([first, second]).std(0)
        away = (first[:, None] - second) / np.where(spread > 0.0, spread, 1.0)
        return _reordered(program, model, z, assigned((away**2).sum(-1), [range(count)]), data)

    return matched


def _reordered(program: Program, model: Any, z: np.ndarray, order: np.ndarray, data: Data) -> np.ndarray:
    """A place with its labels taken in another order."""
    values = {
        name: np.take(np.asarray(value), order, axis=model.dims[name].index(model.label))
        if model.label in model.dims.get(name, ())
        else value
        for name, value in values_at(program, z, data.alone).items()
    }
    return place_of(program, values, data)


def _mean_latent(program: Program, z: np.ndarray, data: Data) -> np.ndarray:
    """Mean latent of all units; from their curvature, which is compiled anyway, where that knows it."""
    if data.rules:
        known = units_curvature(program, z, data)
        sums = known.latent.get("y") if isinstance(known, UnitCurvature) else known.latent
        if sums is not None:
            return np.asarray(sums) / (float(data.weight) * len(data.y))
    return np.asarray(_by_conditional(program, z, data))


@partial(jax.jit, static_argnames="program")
def _by_conditional(program: Program, z: Array, data: Data) -> jax.Array:
    fn, y = program.evaluate(data.numbers, z, data.y, data.covariates).observed["y"]
    conditional = fn.conditional_on(data.rule("y", y)) if "y" in data.rules else fn.conditional(y)
    return conditional.mean.mean(0)


def settings_as_dict(method: Any) -> dict[str, Any]:
    """Settings with the name of the method, for provenance."""
    return {"name": type(method).__name__, **dataclasses.asdict(method)}
