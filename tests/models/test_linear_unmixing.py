"""LinearUnmixing before any inference: options, priors bound to data, starts, words."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpyro import handlers

from bayesunmix.models import LinearUnmixing


def data(n_units: int = 50, n_channels: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    spectra = rng.gamma(2.0, 1.0, (2, n_channels))
    return rng.dirichlet(np.ones(2), n_units) @ spectra + 0.05 * rng.normal(size=(n_units, n_channels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_endmembers": 0}, "n_endmembers: expected an integer of at least 1, got 0"),
        ({"n_endmembers": 2.5}, "n_endmembers: expected an integer"),
        ({"n_endmembers": True}, "n_endmembers: expected an integer"),
        ({"n_endmembers": 2, "concentration": np.ones(2)}, "concentration: expected a positive number or .learned."),
        ({"n_endmembers": 2, "endmembers": [[1.0, 2.0], [1.0]]}, "endmembers: expected one array"),
        ({"n_endmembers": 2, "endmembers": np.zeros((2, 4))}, "endmembers: every one of them is zero"),
        ({"n_endmembers": 2, "endmembers": np.array([[1.0, -0.5], [1, 1]])}, "endmembers: expected no negative values"),
        ({"n_endmembers": 2, "noise": "pink"}, "noise: expected one of 'isotropic', 'diagonal', got 'pink'"),
        ({"n_endmembers": 2, "likelihood": "gamma"}, "likelihood: expected one of 'normal'"),
        ({"n_endmembers": 2, "endmember_support": "positive"}, "endmember_support: expected one of"),
        ({"n_endmembers": 2, "concentration": 0.0}, "concentration: expected a positive number or .learned., got 0.0"),
        ({"n_endmembers": 2, "concentration": np.inf}, "concentration: expected a positive number or .learned."),
        ({"n_endmembers": 2, "endmembers": np.ones((3, 4))}, r"endmembers: expected .* \(2, channel\), got \(3, 4\)"),
        ({"n_endmembers": 2, "endmembers": np.full((2, 4), np.nan)}, "endmembers: expected finite numbers"),
        ({"n_endmembers": 2, "endmembers": [None]}, "endmembers: expected 2 entries, one for each, got 1"),
        ({"n_endmembers": 2, "endmembers": [None, [np.nan, 1.0]]}, r"endmembers\[1\]: expected finite numbers"),
        ({"n_endmembers": 2, "endmembers": [None, ([1.0, 1.0], 0.0)]}, r"endmembers\[1\]: expected positive standard"),
        ({"n_endmembers": 2, "endmembers": [None, ([1.0, 1.0], [1.0] * 3)]}, r"one number or \(2,\), got shape \(3,\)"),
        ({"n_endmembers": 2, "endmembers": [([1.0, 1.0], 0.1), [1.0] * 3]}, r"of one length, got \[2, 3\] channels"),
        ({"n_endmembers": 2, "endmembers": [None, [-1.0, 1.0]]}, "endmembers: expected no negative values"),
        ({"n_endmembers": 2, "smoothness": 0.0}, "smoothness: expected a positive number of channels"),
        ({"n_endmembers": 2, "smoothness": "yes"}, "smoothness: expected a positive number of channels"),
        ({"n_endmembers": 2, "smoothness": 3, "endmembers": np.ones((2, 4))}, "smoothness: all endmembers are known"),
        ({"n_endmembers": 2, "sparsity": -1.0}, "sparsity: expected a positive number or .learned., got -1.0"),
        ({"n_endmembers": 2, "sparsity": 3, "endmember_support": "real"}, "sparsity belongs to endmember_support"),
        ({"n_endmembers": 2, "sparsity": 3, "smoothness": 3}, "sparsity and smoothness do not go together"),
        ({"n_endmembers": 2, "sparsity": 3, "endmembers": np.ones((2, 4))}, "sparsity: something is known of every"),
        (
            {"n_endmembers": 1, "sparsity": 3, "endmembers": [([1.0, 1.0], 0.1)]},
            "sparsity: something is known of every",
        ),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearUnmixing(**options)


@pytest.mark.parametrize("known", [np.ones((2, 4)) * 1j, [["a", "b"], ["c", "d"]]])
def test_endmembers_that_are_no_real_numbers(known: Any) -> None:
    with pytest.raises(TypeError, match="endmembers: expected real numbers"):
        LinearUnmixing(2, endmembers=known)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="n_members"):
        LinearUnmixing(2, n_members=3)  # type: ignore[call-arg]


def test_an_unbound_model_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"model\.bind\(data\)"), handlers.seed(rng_seed=0):
        LinearUnmixing(2)(data(), n_units=50)


def test_binding_fills_the_numbers_in_and_changes_nothing_else() -> None:
    model = LinearUnmixing(2, noise="diagonal", concentration=0.5)
    bound = model.bind(data())
    assert not model.bound and bound.bound
    assert (bound.n_endmembers, bound.noise, bound.concentration) == (2, "diagonal", 0.5)
    assert np.shape(bound.endmember_scale) == np.shape(bound.noise_level) == (6,)
    # The plane through two endmembers leaves the noise.
    np.testing.assert_allclose(bound.noise_level, 0.05, rtol=0.5)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_priors_scale_with_the_data(noise: Any, factor: float) -> None:
    plain, scaled = (LinearUnmixing(2, noise=noise).bind(f * data()) for f in (1.0, factor))
    for name in ("endmember_scale", "noise_level", "endmember_resolution"):
        np.testing.assert_allclose(getattr(scaled, name), factor * np.asarray(getattr(plain, name)), rtol=1e-9)


def test_priors_do_not_see_the_order_or_the_grid_of_the_pixels() -> None:
    plain = LinearUnmixing(2).bind(data())
    other = LinearUnmixing(2).bind(data()[::-1].reshape(10, 5, 6))
    np.testing.assert_allclose(other.endmember_scale, plain.endmember_scale, rtol=1e-12)
    np.testing.assert_allclose(other.noise_level, plain.noise_level, rtol=1e-9)


def test_a_template_without_variation_gives_unit_scales() -> None:
    bound = LinearUnmixing(2).bind(np.zeros((4, 5, 6)))
    np.testing.assert_array_equal(bound.endmember_scale, np.ones(6))
    assert bound.noise_level == pytest.approx(0.05)


def test_channels_must_suffice_and_fit_known_endmembers() -> None:
    with pytest.raises(ValueError, match="n_endmembers=7 exceeds the 6 channels"):
        LinearUnmixing(7).bind(data())
    with pytest.raises(ValueError, match="endmembers have 5 channels, the data 6"):
        LinearUnmixing(2, endmembers=np.ones((2, 5))).bind(data())


def test_pixels_must_suffice_for_unknown_endmembers() -> None:
    with pytest.raises(ValueError, match="n_endmembers=3 exceeds the 2 pixels"):
        LinearUnmixing(3).bind(data()[:2])


def known_spectra() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 1.0, (2, 6))  # those of data()


@pytest.mark.parametrize("factor", [1e-3, 1e3, 3.0])
def test_known_endmembers_in_other_units_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"multiplied by \S+: give both in the same units") as caught:
        LinearUnmixing(2, endmembers=factor * known_spectra()).bind(data())
    # The noise of the mean spectrum is .5 % of its length.
    assert float(str(caught.value).split("multiplied by ")[1].split(":")[0]) == pytest.approx(1 / factor, rel=0.02)
    assert "brightness=True" in str(caught.value)
    LinearUnmixing(2, endmembers=factor * known_spectra(), brightness=True).bind(data())


@pytest.mark.parametrize("known", [lambda w: w, lambda w: (w, 0.1 * w + 0.1)])
def test_one_known_endmember_in_other_units_is_refused(known: Any) -> None:
    first = known_spectra()[0]
    LinearUnmixing(2, endmembers=[None, known(2 * first)]).bind(data())  # no pixel is pure
    with pytest.raises(ValueError, match=r"endmembers\[1\] is \S+ times as long as the largest pixel"):
        LinearUnmixing(2, endmembers=[None, known(1e3 * first)]).bind(data())
    LinearUnmixing(2, endmembers=[None, known(1e3 * first)], brightness=True).bind(data())


def test_known_endmembers_of_something_else_are_warned_of() -> None:
    other = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]])
    with pytest.warns(UserWarning, match=r"misses the mean spectrum of the data by \d+%"):
        LinearUnmixing(2, endmembers=other).bind(data())


def test_known_endmembers_are_not_judged_by_noise_alone() -> None:
    noise = np.random.default_rng(1).normal(size=(50, 6))
    LinearUnmixing(2, endmembers=1e3 * known_spectra()).bind(noise)


def test_twins_among_known_endmembers_are_warned_of() -> None:
    one, two = known_spectra()
    with pytest.warns(UserWarning, match="endmembers 1 and 2 are the same spectrum"):
        LinearUnmixing(3, endmembers=[one, two, two]).bind(data())
    with pytest.warns(UserWarning, match="some of the endmembers are mixtures of others"):
        LinearUnmixing(3, endmembers=[one, two, (one + two) / 2]).bind(data())
    with pytest.raises(ValueError, match="got the same one 3 times"):
        LinearUnmixing(3, endmembers=[one, one, one]).bind(data())


def test_twins_of_another_brightness_are_warned_of_where_it_varies(recwarn: pytest.WarningsRecorder) -> None:
    one, two = known_spectra()
    LinearUnmixing(3, endmembers=[one, two, 2.0 * two]).bind(data())
    LinearUnmixing(2, endmembers=[one, two], brightness=True).bind(data())
    LinearUnmixing(1, endmembers=[one], brightness=True).bind(data())
    assert not [w for w in recwarn if "cannot tell their abundances apart" in str(w.message)]
    with pytest.warns(UserWarning, match="endmembers 1 and 2 are the same spectrum of any brightness"):
        LinearUnmixing(3, endmembers=[one, two, 2.0 * two], brightness=True).bind(data())
    with pytest.warns(UserWarning, match="some of the endmembers are mixtures of others"):
        LinearUnmixing(3, endmembers=[one, two, one + two], brightness=True).bind(data())


@pytest.mark.parametrize("support", ["nonnegative", "real"])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_program_and_textbook_program_have_the_same_globals(support: Any, noise: Any) -> None:
    model = LinearUnmixing(2, endmember_support=support, noise=noise).bind(data())
    traces = [
        handlers.trace(handlers.seed(program, 0)).get_trace(data(), n_units=50) for program in (model, model.joint)
    ]
    marginal, joint = ({n: s for n, s in t.items() if s["type"] == "sample"} for t in traces)
    assert set(joint) - set(marginal) == {"abundance"}
    assert joint["abundance"]["value"].shape == (50, 2)
    for name in ("endmembers", "noise_scale"):
        assert marginal[name]["value"].shape == joint[name]["value"].shape
        assert float(marginal[name]["fn"].log_prob(1.0 + 0 * marginal[name]["value"]).sum()) == pytest.approx(
            float(joint[name]["fn"].log_prob(1.0 + 0 * joint[name]["value"]).sum())
        )


def test_start_is_inside_the_support() -> None:
    values = np.maximum(data(), 0.0)
    values[:, 0] = 0.0  # a dead channel
    start = LinearUnmixing(2).bind(values).initial(values)
    assert (start["endmembers"] > 0).all() and start["noise_scale"] > 0
    assert "endmembers" not in LinearUnmixing(2, endmembers=known_spectra()).bind(values).initial(values)


def test_labels_are_ordered_by_mean_abundance() -> None:
    model = LinearUnmixing(3)
    np.testing.assert_array_equal(model.order({"abundance": np.array([0.2, 0.5, 0.3])}), [1, 2, 0])
    assert model.label == "endmember"
    assert LinearUnmixing(1).label is None
    assert LinearUnmixing(2, endmembers=np.ones((2, 6))).label is None


def test_description_says_the_numbers() -> None:
    model = LinearUnmixing(2, concentration=0.5)
    assert "when the model is fitted" in model.describe()
    words = model.bind(data()).describe()
    level = f"expected near {model.bind(data()).noise_level:.3g}"
    for piece in ("2 endmembers", "Dirichlet(0.5)", "half-normal", "Noise: normal", level):
        assert piece in words
    assert "known, taken as exact" in LinearUnmixing(2, endmembers=np.ones((2, 6))).describe()


# ---------------------------------------------------------------------- knowledge of each endmember


def mixed(kind: str = "nonnegative") -> LinearUnmixing:
    one, two = known_spectra()
    return LinearUnmixing(3, endmembers=[one, (two, 0.05), None], endmember_support=kind).bind(data())


def test_entries_that_say_the_same_make_the_same_model() -> None:
    one, two = known_spectra()
    np.testing.assert_array_equal(LinearUnmixing(2, endmembers=[one, two]).endmembers, np.stack([one, two]))
    assert LinearUnmixing(2, endmembers=[None, None]).endmembers is None
    again = dataclasses.replace(mixed(), concentration=2.0)
    assert again.endmembers[2] is None
    np.testing.assert_array_equal(again.endmembers[1][1], np.full(6, 0.05))


@pytest.mark.parametrize("kind", ["nonnegative", "real"])
def test_prior_draws_keep_what_is_known(kind: str) -> None:
    model = mixed(kind)
    with handlers.seed(rng_seed=0):
        trace = handlers.trace(model).get_trace(n_units=5)
    drawn = np.asarray(trace["endmembers"]["value"])
    one, two = known_spectra()
    np.testing.assert_array_equal(drawn[0], one.astype(drawn.dtype))
    assert 0 < np.abs(drawn[1] - two).max() < 0.05 * 5
    assert model.label is None


def test_the_start_puts_spectra_where_they_are_known() -> None:
    rng = np.random.default_rng(1)
    spectra = rng.gamma(2.0, 1.0, (3, 6))
    values = rng.dirichlet(np.full(3, 0.5), 200) @ spectra + 0.01 * rng.normal(size=(200, 6))
    model = LinearUnmixing(3, endmembers=[None, spectra[2], (spectra[0], 0.1)]).bind(values)
    start = model.initial(values)["endmembers"]
    np.testing.assert_array_equal(start[1], spectra[2])
    assert np.abs(start[2] - spectra[0]).max() < 0.1 + 1e-12
    # The free one is what is left: nearer to the second spectrum than to the others.
    assert np.argmin(np.linalg.norm(start[0] - spectra, axis=1)) == 1


def test_the_start_goes_to_the_data_where_no_more_is_known_than_dark_channels() -> None:
    rng = np.random.default_rng(2)
    spectra = np.kron(np.eye(3), [1.0, 2.0])
    values = rng.dirichlet(np.full(3, 0.3), 200) @ spectra + 0.01 * rng.normal(size=(200, 6))
    known = [(np.zeros(6), np.where(one == 0, 1e-3, 3.0)) for one in spectra]
    start = LinearUnmixing(3, endmembers=known).bind(values).initial(values)["endmembers"]
    np.testing.assert_allclose(start, spectra, atol=0.2)
    assert start[spectra == 0].max() <= 1e-3


def test_description_says_what_is_known() -> None:
    said = mixed().describe()
    assert "Of the endmembers 0 known exactly; 1 known up to a standard deviation; 2 free." in said
    assert "over a learned number of channels" in LinearUnmixing(2, smoothness="learned").bind(data()).describe()
    assert "sparsity 3." in LinearUnmixing(2, sparsity=3).describe()
    assert "sparsity learned, .28 to 14 (95 %)." in LinearUnmixing(2, sparsity="learned").describe()


def test_sparse_are_the_spectra_of_which_nothing_is_known() -> None:
    """It acts on the free spectrum alone: entries of the others differ by their standard deviation still."""
    one, two = known_spectra()
    model = LinearUnmixing(3, endmembers=[one, (two, 0.05), None], sparsity=20.0).bind(data())
    with handlers.seed(rng_seed=0):
        drawn = np.asarray(handlers.trace(model).get_trace(n_units=5)["endmembers"]["value"])
    np.testing.assert_array_equal(drawn[0], one.astype(drawn.dtype))
    assert 0 < np.abs(drawn[1] - two).max() < 0.05 * 5
    size = drawn[2] / np.asarray(model.endmember_scale)
    assert size.max() > 1e6 * size.min()


def test_negative_signals_are_refused_with_what_to_do() -> None:
    """As a whole or in half of the channels; not noise about zero, nor a dip of one channel."""
    rng = np.random.default_rng(0)
    spectra = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 12) * np.array([[1.0], [2.3]])))
    image = rng.dirichlet(np.ones(2), 60) @ spectra + 0.05 * rng.normal(size=(60, 12))
    half = np.where(np.arange(12) < 6, 1.0, -1.0)
    for negative in (-image, image * half):
        with pytest.raises(ValueError, match=r'got negative means in .* use endmember_support="real"'):
            LinearUnmixing(2).bind(negative)
        LinearUnmixing(2, endmember_support="real").bind(negative)
    LinearUnmixing(2).bind(rng.normal(size=(60, 12)))
    LinearUnmixing(2).bind(image * np.where(np.arange(12) == 3, -1.0, 1.0))
