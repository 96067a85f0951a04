"""Any model of spectra and weights as a scikit-learn estimator, which HyperSpy's ``decomposition`` takes as well."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
from scipy.special import logsumexp

from bayesunmix.fit import fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.interop.decomposition import decomposition
from bayesunmix.predict import fresh_units, log_likelihood

_PARAMETERS = ("model", "method", "seed", "append_mean", "progress")
_NESTED = ("model", "method")


class Estimator:
    """``fit``, ``transform`` and ``score`` around a model, for scikit-learn and for HyperSpy.

    >>> X = image.values.reshape(-1, image.sizes["channel"])
    >>> estimator = bu.Estimator(bu.models.ProbabilisticPCA(n_components=1), progress=False)
    >>> estimator.fit_transform(X).shape
    (30, 1)

    HyperSpy takes it as it is, ``signal.decomposition(algorithm=estimator)``; lazy signals from its version 2.5 on.

    After ``fit`` every global of the posterior is an attribute with its posterior mean and a trailing underscore
    (``endmembers_``, ``noise_scale_``, ``weights_``, ...), and ``components_`` is that of endmembers, components or
    class means. The mean spectrum of probabilistic PCA is ``mean_spectrum_``: HyperSpy 2.5 adds the attribute
    ``mean_`` of an estimator to the user's data.

    Parameters
    ----------
    model
        ``LinearUnmixing``, ``ProbabilisticPCA`` or ``GaussianMixture``. Its hyper-parameters, and those of the method,
        are parameters of the estimator too, under names such as ``model__n_endmembers``.
    method : SVI, NUTS or Gibbs, optional
        As in :func:`bayesunmix.fit`.
    seed : int or JAX key
    append_mean : bool
        Make the mean spectrum the last component, with a score of one in every pixel. HyperSpy has no other place for
        it; without, ``get_decomposition_model()`` of a probabilistic PCA lacks the mean. (Its search for an elbow needs
        two components or more.)
    progress : bool

    Attributes
    ----------
    components_ : array (component, channel)
        Spectra: ``transform(X) @ components_`` is the mean of the data, or that less ``mean_spectrum_``.
    components_sd_ : array (component, channel)
        Their posterior standard deviation.
    fit_ : Fit
        Everything else: intervals, diagnostics, checks.
    n_features_in_ : int
    """

    def __init__(
        self,
        model: Any,
        method: SVI | NUTS | Gibbs | None = None,
        *,
        seed: Any = 0,
        append_mean: bool = False,
        progress: bool = True,
    ) -> None:
        self.model = model
        self.method = method
        self.seed = seed
        self.append_mean = append_mean
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Estimator:
        """Fit to ``X`` (sample, feature), a pixel a row, in the units they were measured in; ``y`` is ignored.

        Warns
        -----
        UserWarning
            With the verdict, when the fit did not pass its own diagnostics.

        Raises
        ------
        ValueError, TypeError
            As :func:`bayesunmix.fit` does.
        """
        self._learn(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit to ``X`` (sample, feature), and return the posterior mean of abundances, scores or memberships.

        Their dims are (sample, component); ``y`` is ignored.
        """
        return self._learn(X).loadings

    def transform(self, X: Any) -> np.ndarray:
        """Posterior mean of abundances, scores or memberships of other samples (sample, component).

        Raises
        ------
        ValueError
            When ``X`` has other features than the data of the fit, or the model holds something of each fitted sample
            (two-way noise).
        """
        fitted = self._fitted()
        units = fresh_units(fitted, _samples(X))
        return decomposition(dataclasses.replace(fitted, units=units), self.seed, append_mean=self.append_mean).loadings

    def score_samples(self, X: Any) -> np.ndarray:
        """Log predictive density (sample,) of every row of ``X``, its latent integrated out, in nats."""
        draws = log_likelihood(self._fitted(), _samples(X)).values
        flat = draws.reshape(-1, draws.shape[-1])
        return logsumexp(flat, axis=0) - np.log(len(flat))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log predictive density per row of ``X``, in nats, so that cross-validation chooses what predicts best.

        ``y`` is ignored.
        """
        return float(self.score_samples(X).mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with ``deep`` also the fields of model and method, as ``model__likelihood``."""
        own = {name: getattr(self, name) for name in _PARAMETERS}
        nested = {}
        for outer in _NESTED if deep else ():
            if dataclasses.is_dataclass(own[outer]):
                for field in dataclasses.fields(own[outer]):
                    nested[f"{outer}__{field.name}"] = getattr(own[outer], field.name)
        return own | nested

    def set_params(self, **params: Any) -> Estimator:
        """Change ``params`` by the names that :meth:`get_params` gives; model and method are replaced, not changed.

        Raises
        ------
        ValueError
            For a name that is not known.
        """
        known = self.get_params()
        unknown = [name for name in params if name not in known]
        if unknown:
            raise ValueError(f"unknown parameters {unknown}; expected some of {sorted(known)}")
        for name in sorted(params, key=lambda name: "__" in name):  # the whole model before its fields
            outer, _, inner = name.partition("__")
            value = dataclasses.replace(getattr(self, outer), **{inner: params[name]}) if inner else params[name]
            setattr(self, outer, value)
        return self

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}={getattr(self, n)!r}" for n in _PARAMETERS if getattr(self, n) is not None)
        return f"Estimator({shown})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fit_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer", target_tags=TargetTags(required=False), transformer_tags=TransformerTags()
        )

    def _learn(self, X: Any) -> Any:
        self.fit_ = fit(self.model, _samples(X), self.method, seed=self.seed, progress=self.progress)
        if not self.fit_.converged:
            warnings.warn(self.fit_.diagnostics.attrs["verdict"], UserWarning, stacklevel=3)
        found = decomposition(self.fit_, self.seed, append_mean=self.append_mean)
        for name, draws in self.fit_.posterior.data_vars.items():
            setattr(self, "mean_spectrum_" if name == "mean" else f"{name}_", draws.mean(("chain", "draw")).values)
        self.components_, self.components_sd_ = found.factors, found.factors_sd
        self.n_features_in_ = self.fit_.units.n_channels
        return found

    def _fitted(self) -> Any:
        if not hasattr(self, "fit_"):
            raise AttributeError("this estimator is not fitted yet: call fit(X) or fit_transform(X) first")
        return self.fit_


def _samples(X: Any) -> np.ndarray:
    values = np.asarray(X)
    if values.ndim != 2:
        raise ValueError(
            f"X: expected (sample, feature), a pixel a row, got shape {values.shape}; reshape an image with "
            "X.reshape(-1, n_channels), or call bu.fit, which takes it as it is"
        )
    return values
