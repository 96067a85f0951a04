"""Local crystallography on lattices simulated from positions: coverage, memberships, class counts, and peers.

    python benchmarks/crystallography.py calibration --sets 100 [--nuts]
    python benchmarks/crystallography.py coverage --lattices 10
    python benchmarks/crystallography.py count --lattices 10
    python benchmarks/crystallography.py atoms --images 10

``calibration`` draws parameters and vectors from the prior of small mixtures, with and without known errors, by
``bu.calibrate``. ``coverage`` fits ``GaussianMixture`` to the neighbour vectors of two-phase and four-variant lattices
at three position errors, and scikit-learn's k-means and GaussianMixture (which knows of no errors) to the same vectors;
memberships by the true parameters are the best there can be. ``count`` compares numbers of classes, fitted by
``bu.sweep``, by WAIC. ``atoms`` finds atoms in simulated images and holds position errors against the Cramer-Rao bound
of the whole image.
Standard errors are computed across lattices or images. Tables go to ``benchmarks/results/``, and beside them what was
found of each lattice, where a run that was stopped goes on. Speed beside scikit-learn's mixture: ``python -m benchmarks
classes``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from calibration import commit, table
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

import bayesunmix as bu
from bayesunmix.data.lattices import atom_image, off_centred_lattice

ERRORS = (0.15, 0.3, 0.6)  # pixels, against an off-centring of 1.5 and a scatter of 0.25
CLASSES = {"two-phase": 2, "four-variant": 4}
SCATTER = 0.25  # pixels, the simulator's, of every atom along both axes


# Classes, features, covariance of the classes, whether every vector has a known error.
PRIORS = {
    "no errors": (2, 2, "full", False),
    "known errors": (2, 3, "full", True),
    "known errors of positions": (2, 4, "positions", True),
}


def calibration(args) -> tuple[str, list[str]]:
    """Ranks of the truth in the posterior of mixtures whose parameters come from their prior."""
    lines, by = [], "nuts_" if args.nuts else ""
    for name, (k, n_features, kind, known) in PRIORS.items():
        rng = np.random.default_rng(0)
        root = 0.3 * rng.normal(size=(args.units, n_features, n_features + 2)) / np.sqrt(n_features + 2)
        errors = root @ root.transpose(0, 2, 1) * np.exp(rng.uniform(-0.7, 0.7, (args.units, 1, 1)))
        path = args.out / f"crystallography_calibration_{by}{kind}_{n_features}.npz"
        if args.kept and not path.exists():
            continue
        found = bu.calibrate(
            bu.models.GaussianMixture(k, covariance=kind),
            np.zeros((args.units, n_features)),
            len(np.load(path)["converged"]) if args.kept else args.sets,
            method=bu.NUTS() if args.nuts else None,
            path=path,
            progress=False,
            **({"measurement_cov": errors} if known else {}),
        )
        off = int((~found["converged"]).sum())
        lines += [
            f"{name}: {k} classes, {n_features} features, `covariance={kind!r}`; "
            f"{found.sizes['simulation']} data sets, {off} of them not converged by their own verdict",
            "",
            *table(found),
            "",
        ]
        print("\n".join(lines[-len(found["name"]) - 5 :]), flush=True)
    how = "NUTS" if args.nuts else "default fit"
    title = f"Simulation-based calibration of `GaussianMixture`: {args.units} vectors a data set, {how}."
    return title, lines


def lattice(domains: str, error: float, side: int, seed: int):
    """Neighbour vectors, labels of their atoms, truth."""
    atoms, truth = off_centred_lattice((side, side), domains, position_error=error, scatter=SCATTER, seed=seed)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    vectors = vectors.isel(atom=np.flatnonzero(vectors["complete"].values))  # scikit-learn takes no others
    return vectors, truth["label"].values[vectors["index"].values], truth


def matched(means: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """True class of every fitted one."""
    return linear_sum_assignment(((means[:, None] - truth) ** 2).sum(-1))[1]


def _inside(draws: np.ndarray, truth) -> np.ndarray:
    """Whether 90 % intervals hold the truth."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return (low <= truth) & (truth <= high)


def score(share: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Accuracy of the most probable class, and mean negative log of the true one's probability."""
    n = len(label)
    truth = share[np.arange(n), label]
    return {"accuracy": float(np.mean(share.argmax(1) == label)), "log loss": float(-np.log(truth + 1e-12).mean())}


def _bins(share: np.ndarray) -> np.ndarray:
    return np.minimum((share.ravel() * 10).astype(int), 9)


def counted(share: np.ndarray) -> list[int]:
    """How many stated probabilities fall into each of ten bins."""
    return np.bincount(_bins(share), minlength=10).tolist()


def binned(share: np.ndarray, label: np.ndarray) -> tuple[list[float], list[float]]:
    """Sums over ten bins of stated probability: of times it came true, and of the probability."""
    place, hits = _bins(share), np.eye(share.shape[1])[label].ravel()
    return tuple(np.bincount(place, weights=w, minlength=10).tolist() for w in (hits, share.ravel()))


def reliability(runs: list[dict], who: str) -> float:
    """Mean distance between stated probability and frequency over ten bins, weighted by what they hold."""
    hits, stated, counts = (np.sum([run[name + who] for run in runs], 0) for name in ("hits", "stated", "counts"))
    return float(np.abs(hits - stated).sum() / counts.sum())


def oracle(vectors, truth) -> np.ndarray:
    """Memberships (atom, component) by the true parameters: the best that vectors with these errors allow."""
    away = vectors["vector"].values[:, None] - truth["means"].values
    cov = truth["covariances"].values + vectors["vector_cov"].values[:, None]
    square = (away * np.linalg.solve(cov, away[..., None])[..., 0]).sum(-1)
    log_p = np.log(truth["weights"].values) - 0.5 * (square + np.linalg.slogdet(cov)[1])
    share = np.exp(log_p - log_p.max(1, keepdims=True))
    return share / share.sum(1, keepdims=True)


def _columns(rows: list[dict], names: dict[str, str]) -> list[str]:
    """Markdown table of some entries of every row; ``names`` gives every column's heading and format."""
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(shape.format(**row) for shape in names.values()) + " |" for row in rows]


class Kept:
    """What was found of each lattice, image or data set, by its name, in a file that grows."""

    def __init__(self, path: Path, only: bool = False):
        self.path, self.only = path, only
        self.rows: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, make, *named) -> dict | None:
        """The row of this name, made from it now where there is none yet; None where none is to be made."""
        name = " ".join(map(str, named))
        if self.only:
            return self.rows.get(name)
        if name not in self.rows:
            self.rows[name] = make(*named)
            self.path.write_text(json.dumps(self.rows) + "\n")
            print(name, json.dumps({k: v for k, v in self.rows[name].items() if np.ndim(v) == 0}), flush=True)
        return self.rows[name]


def one_lattice(domains: str, error: float, seed: int, side: int, covariance: str) -> dict:
    """What three ways make of one lattice's vectors, and the true parameters of them."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    k = CLASSES[domains]
    vectors, label, truth = lattice(domains, error, side, seed)
    start = time.perf_counter()
    fit = bu.fit(bu.models.GaussianMixture(k, covariance=covariance), vectors, seed=seed, progress=False)
    wall = time.perf_counter() - start
    flat = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    match = matched(flat["means"].values.mean(0), truth["means"].values)
    share = np.empty((len(label), k))
    share[:, match] = fit.latent()["membership"].sel(statistic="mean").values
    y = vectors["vector"].values
    kmeans = KMeans(k, n_init=10, random_state=seed).fit(y)
    hard = np.eye(k)[matched(kmeans.cluster_centers_, truth["means"].values)[kmeans.labels_]]
    peer = GaussianMixture(k, covariance_type="tied", n_init=5, random_state=seed).fit(y)
    theirs = np.empty_like(share)
    theirs[:, matched(peer.means_, truth["means"].values)] = peer.predict_proba(y)
    found = {
        "means": float(np.mean(_inside(flat["means"].values, truth["means"].values[match]))),
        "scatter": float(np.mean(_inside(flat["scales"].values, SCATTER))),
        "weights": float(np.mean(_inside(flat["weights"].values, truth["weights"].values[match]))),
        "scatter over truth": float(np.mean(flat["scales"].values.mean(0) / SCATTER)),
        "scatter over truth, GMM": float(np.mean(np.sqrt(np.diagonal(peer.covariances_) / 2.0)) / SCATTER),
        "converged": float(fit.converged),
        "seconds": wall,
    }
    for who, given in (("", share), (", GMM", theirs), (", truth", oracle(vectors, truth)), (", k-means", hard)):
        hits, stated = binned(given, label)
        found |= {f"{what}{who}": value for what, value in score(given, label).items()}
        found |= {f"hits{who}": hits, f"stated{who}": stated, f"counts{who}": counted(given)}
    return found


def coverage(args) -> tuple[str, list[str]]:
    kept = Kept(args.out / f"crystallography_coverage_{args.covariance}.json", args.kept)
    rows = []
    for domains in CLASSES:
        for error in ERRORS:
            runs = [
                kept.get(one_lattice, domains, error, seed, args.side, args.covariance) for seed in range(args.lattices)
            ]
            runs = [run for run in runs if run]
            if len(runs) < 2:
                continue
            row = {"domains": domains, "error": error, "lattices": len(runs)}
            for name in (n for n, value in runs[0].items() if np.ndim(value) == 0):
                values = np.array([run[name] for run in runs])
                row[name] = float(np.median(values) if name == "seconds" else values.mean())
                row[f"{name} se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
            for who in ("", ", GMM", ", k-means"):
                row[f"reliability{who}"] = reliability(runs, who)
            rows.append(row)
    where = {"domains": "{domains}", "position error (px)": "{error:g}"}
    ours = {
        "lattices": "{lattices}",
        "means": "{means:.3f} ± {means se:.3f}",
        "scatter": "{scatter:.3f} ± {scatter se:.3f}",
        "weights": "{weights:.3f} ± {weights se:.3f}",
        "converged": "{converged:.2f}",
        "seconds, median": "{seconds:.1f}",
    }
    shapes = {"log loss": ".3f", "accuracy": ".3f", "reliability": ".3f", "scatter over truth": ".2f"}
    who = {"truth": ", truth", "bayesunmix": "", "GMM": ", GMM", "k-means": ", k-means"}
    beside = {
        f"{what}, {name}": "{" + what + key + ":" + shape + "}"
        for what, shape in shapes.items()
        for name, key in who.items()
        if what + key in rows[0] and (what, name) != ("log loss", "k-means")
    }
    title = (
        f"Lattices simulated from positions, {args.side} x {args.side} cells each, "
        f"`covariance={args.covariance!r}`. Off-centring 1.5 px, scatter of every atom {SCATTER} px."
    )
    lines = ["How often 90 % intervals hold the truth (weights: of the whole lattice), and standard errors:", ""]
    lines += [*_columns(rows, where | ours), ""]
    lines += [
        "Beside the true parameters, scikit-learn's tied GaussianMixture, and k-means. Reliability: distance between "
        "stated probability and frequency over ten bins, weighted by what they hold, all lattices of a row pooled.",
        "",
    ]
    return title, lines + _columns(rows, where | beside)


def preferred(domains: str, error: float, seed: int, side: int, covariance: str) -> dict:
    """The number of classes that WAIC prefers among the true one, one less, and one more."""
    k = CLASSES[domains]
    vectors, _, _ = lattice(domains, error, side, 1000 + seed)
    model, sizes = bu.models.GaussianMixture(k, covariance=covariance), range(k - 1, k + 2)
    fits = bu.sweep(model, vectors, n_components=sizes, seed=seed, progress=False)
    table = bu.compare(fits)
    return {
        "preferred": table.attrs["preferred"],
        "converged": [bool(fit.converged) for fit in fits.values()],
        "elpd_diff": [float(table.loc[name, "elpd_diff"]) for name in fits],
        "dse": [float(table.loc[name, "dse"]) for name in fits],
        "verdict": table.attrs["verdict"],
    }


def count(args) -> tuple[str, list[str]]:
    """How often WAIC prefers the true number of classes among that one, one less, and one more."""
    kept = Kept(args.out / f"crystallography_count_{args.covariance}.json", args.kept)
    rows, right, total = [], 0, 0
    for domains, k in CLASSES.items():
        for error in ERRORS:
            runs = [
                kept.get(preferred, domains, error, seed, args.side, args.covariance) for seed in range(args.lattices)
            ]
            runs = [run for run in runs if run]
            if len(runs) < 2:
                continue
            times = {n: sum(run["preferred"] == f"n_components={k + n}" for run in runs) for n in (-1, 0, 1)}
            none = sum(run["preferred"] is None for run in runs)
            off = sum(not all(run["converged"]) for run in runs)
            rows.append({"domains": domains, "error": error, "one less": times[-1], "right": times[0]})
            rows[-1] |= {"one more": times[1], "none": none, "off": off}
            right, total = right + times[0], total + len(runs)
    title = (
        "Number of classes preferred by `bu.compare` (WAIC) of `bu.sweep` among the true one, one less and one more: "
        f"right in {right} of {total}. Lattices of {args.side} x {args.side} cells, `covariance={args.covariance!r}`."
    )
    names = {
        "domains": "{domains}",
        "position error (px)": "{error:g}",
        "one less": "{one less}",
        "right": "{right}",
        "one more": "{one more}",
        "no verdict": "{none}",
        "runs with a fit that did not converge": "{off}",
    }
    return title, _columns(rows, names)


def bound(
    positions: np.ndarray, heights: np.ndarray, width: float, shape, background: float, dose: float
) -> np.ndarray:
    """Cramer-Rao bound (atom, 2, 2) of Poisson images: a constant background and four unknowns per atom."""
    mean, cells = (
        np.full(shape, background),
        [(np.arange(np.prod(shape)), np.zeros(np.prod(shape)), np.ones(np.prod(shape)))],
    )
    for i, (p, a) in enumerate(zip(positions, heights, strict=True)):
        low = np.maximum(np.floor(p - 5 * width).astype(int), 0)
        high = np.minimum(np.ceil(p + 5 * width).astype(int) + 1, shape)
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
        dy, dx = (y - p[0]) / width, (x - p[1]) / width
        spot = np.exp(-0.5 * (dy**2 + dx**2))
        mean[y, x] += a * spot
        flat = (y * shape[1] + x).ravel()
        slopes = (spot, a * spot * dy / width, a * spot * dx / width, a * spot * (dy**2 + dx**2))
        cells += [(flat, np.full(flat.size, 1 + 4 * i + j), s.ravel()) for j, s in enumerate(slopes)]
    rows, columns, values = (np.concatenate(part) for part in zip(*cells, strict=True))
    jacobian = csr_matrix((values, (rows, columns)), shape=(mean.size, 1 + 4 * len(positions)))
    information = (jacobian.T @ jacobian.multiply((dose / mean.ravel())[:, None])).toarray()
    inverse = np.linalg.inv(information)
    return np.array([inverse[2 + 4 * i : 4 + 4 * i, 2 + 4 * i : 4 + 4 * i] for i in range(len(positions))])


def atoms(args) -> tuple[str, list[str]]:
    rows = []
    grid = 12.0 * (np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), -1).reshape(-1, 2) + 1)
    for dose in (30.0, 100.0, 1000.0):
        covered, spread, shift, missed = [], [], [], 0
        for seed in range(args.images):
            rng = np.random.default_rng(seed)
            positions = grid + 0.5 * rng.normal(size=grid.shape)
            heights = np.where(np.indices((8, 8)).sum(0).ravel() % 2, 1.0, 0.6)
            shape = (108, 108)
            image = atom_image(positions, shape, amplitude=heights, width=2.2, dose=dose, seed=seed)
            best = bound(positions, heights, 2.2, shape, 0.3, dose)
            found = bu.descriptors.find_atoms(image, noise="poisson")
            distance, near = cKDTree(found["position"].values).query(positions)
            seen = distance < 3.0
            missed += int(np.sum(~seen))
            error = (found["position"].values[near] - positions)[seen]
            cov = found["position_cov"].values[near][seen]
            covered.append(np.mean(np.einsum("ni,nij,nj->n", error, np.linalg.inv(cov), error) < 4.605))
            spread.append(np.mean(np.einsum("ni,nij,nj->n", error, np.linalg.inv(best[seen]), error)) / 2)
            shift.append(error.mean(0))
        n = args.images
        bias, bias_error = np.mean(shift, 0), np.std(shift, 0, ddof=1) / np.sqrt(n)
        row = {
            "dose": dose,
            "coverage": float(np.mean(covered)),
            "error": float(np.std(covered, ddof=1) / np.sqrt(n)),
            "spread": float(np.sqrt(np.mean(spread))),
            "bias": ", ".join(f"{b:+.4f} ± {e:.4f}" for b, e in zip(bias, bias_error, strict=True)),
            "missed": f"{missed} of {n * len(grid)}",
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    title = (
        f"Atoms of two heights (1 and 0.6 over a background of 0.3) found in {args.images} Poisson images a dose, "
        "against the Cramer-Rao bound of the whole image with the spots' width and background unknown."
    )
    names = {
        "counts per unit of height": "{dose:g}",
        "90 % ellipses cover": "{coverage:.3f} ± {error:.3f}",
        "spread over the bound": "{spread:.3f}",
        "bias along y, x (px)": "{bias}",
        "missed": "{missed}",
    }
    return title, _columns(rows, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("calibration", "coverage", "count", "atoms"))
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--units", type=int, default=200, help="vectors of a calibration's data sets")
    parser.add_argument("--nuts", action="store_true", help="calibration: sample every posterior")
    parser.add_argument("--lattices", type=int, default=10)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--covariance", default="tied-positions", help="of the classes")
    parser.add_argument("--kept", action="store_true", help="a table of what is done, and no more")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    title, lines = globals()[args.what](args)
    text = "\n".join([title, "", f"Version {bu.__version__} ({commit()}).", "", *lines])
    name = args.what + "_nuts" * args.nuts
    (args.out / f"crystallography_{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
