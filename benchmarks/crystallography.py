"""Local crystallography on lattices simulated from positions: coverage, memberships, class counts, and peers.

    python benchmarks/crystallography.py coverage --lattices 10
    python benchmarks/crystallography.py count --lattices 10
    python benchmarks/crystallography.py atoms --images 10
    python benchmarks/crystallography.py speed --atoms 100000

``coverage`` fits ``GaussianMixture`` to the neighbour vectors of two-phase and four-variant lattices at three position
errors, and scikit-learn's k-means and GaussianMixture (which knows of no errors) to the same vectors. ``count``
compares numbers of classes by WAIC. ``atoms`` finds atoms in simulated images and holds position errors against the
Cramer-Rao bound of the whole image. ``speed`` times a plain mixture against scikit-learn's, turn by turn. Standard
errors are computed across lattices or images. Tables go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

import bayesunmix as bu
from bayesunmix.data.lattices import atom_image, off_centred_lattice

ERRORS = (0.15, 0.3, 0.6)  # pixels, against an off-centring of 1.5 and a scatter of 0.25
CLASSES = {"two-phase": 2, "four-variant": 4}


def lattice(domains: str, error: float, side: int, seed: int):
    """Neighbour vectors, labels of their atoms, truth."""
    atoms, truth = off_centred_lattice((side, side), domains, position_error=error, seed=seed)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
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


def reliability(shares: np.ndarray, hits: np.ndarray) -> float:
    """Mean distance between stated probability and frequency over ten bins, weighted by what they hold."""
    place = np.minimum((shares * 10).astype(int), 9)
    gaps = [abs(shares[place == b].mean() - hits[place == b].mean()) * np.mean(place == b) for b in np.unique(place)]
    return float(np.sum(gaps))


def coverage(args) -> list[dict]:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    rows = []
    for domains, k in CLASSES.items():
        for error in ERRORS:
            runs = []
            pooled: dict[str, list] = {"ours": [], "no errors": [], "truth": []}
            for seed in range(args.lattices):
                vectors, label, truth = lattice(domains, error, args.side, seed)
                start = time.perf_counter()
                model = bu.models.GaussianMixture(k, covariance="positions")
                fit = bu.fit(model, vectors, seed=seed, progress=False)
                wall = time.perf_counter() - start
                flat = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
                match = matched(flat["means"].values.mean(0), truth["means"].values)
                true_means = truth["means"].values[match]
                true_scales = 0.25  # the simulator's scatter, of every atom along both axes
                share = np.empty((len(label), k))
                share[:, match] = fit.latent()["membership"].sel(statistic="mean").values
                y = vectors["vector"].values
                kmeans = KMeans(k, n_init=10, random_state=seed).fit(y)
                hard = matched(kmeans.cluster_centers_, truth["means"].values)[kmeans.labels_]
                peer = GaussianMixture(k, covariance_type="tied", n_init=5, random_state=seed).fit(y)
                theirs = np.empty_like(share)
                theirs[:, matched(peer.means_, truth["means"].values)] = peer.predict_proba(y)
                scatter = np.sqrt(np.diagonal(peer.covariances_)) / np.sqrt(2.0)
                runs.append(
                    {
                        "means": np.mean(_inside(flat["means"].values, true_means)),
                        "scatter": np.mean(_inside(flat["scales"].values, true_scales)),
                        "accuracy": score(share, label)["accuracy"],
                        "log loss": score(share, label)["log loss"],
                        "accuracy, k-means": np.mean(hard == label),
                        "accuracy, GMM": score(theirs, label)["accuracy"],
                        "log loss, GMM": score(theirs, label)["log loss"],
                        "scatter over truth": np.mean(flat["scales"].values.mean(0) / true_scales),
                        "scatter over truth, GMM": np.mean(scatter / true_scales),
                        "weights": np.mean(_inside(flat["weights"].values, truth["weights"].values[match])),
                        "converged": float(fit.converged),
                        "seconds": wall,
                    }
                )
                pooled["ours"].append(share)
                pooled["no errors"].append(theirs)
                pooled["truth"].append(np.eye(k)[label])
            hits = np.concatenate(pooled["truth"]).ravel()
            row = {"domains": domains, "position error": error, "lattices": args.lattices}
            for name in runs[0]:
                values = np.array([run[name] for run in runs])
                row[name] = float(values.mean())
                if name in ("means", "scatter", "weights"):
                    row[f"{name}, s.e."] = float(values.std(ddof=1) / np.sqrt(len(values)))
            row["reliability"] = reliability(np.concatenate(pooled["ours"]).ravel(), hits)
            row["reliability, GMM"] = reliability(np.concatenate(pooled["no errors"]).ravel(), hits)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def count(args) -> list[dict]:
    """How often WAIC prefers the true number of classes among that one, one less, and one more."""
    rows = []
    for domains, k in CLASSES.items():
        for seed in range(args.lattices):
            vectors, _, _ = lattice(domains, 0.3, args.side, 100 + seed)
            fits = {
                str(n): bu.fit(bu.models.GaussianMixture(n, covariance="positions"), vectors, seed=seed, progress=False)
                for n in range(k - 1, k + 2)
            }
            table = bu.compare(fits)
            rows.append({"domains": domains, "seed": seed, "true": k, "preferred": table.attrs["preferred"]})
            print(json.dumps(rows[-1]), [bool(f.converged) for f in fits.values()], flush=True)
    right = sum(row["preferred"] == str(row["true"]) for row in rows)
    print(f"right in {right} of {len(rows)}")
    return rows


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


def atoms(args) -> list[dict]:
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
        row = {
            "dose": dose,
            "images": n,
            "coverage": float(np.mean(covered)),
            "s.e.": float(np.std(covered, ddof=1) / np.sqrt(n)),
            "spread over bound": float(np.sqrt(np.mean(spread))),
            "bias": np.mean(shift, 0).tolist(),
            "bias, s.e.": (np.std(shift, 0, ddof=1) / np.sqrt(n)).tolist(),
            "missed": missed,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def speed(args) -> list[dict]:
    """Wall time of ours (posterior included) and scikit-learn's (a point), turn by turn, and their likelihoods."""
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    means = 3.0 * rng.normal(size=(8, 8))
    label = rng.integers(8, size=args.atoms)
    y = means[label] + rng.normal(size=(args.atoms, 8))
    rows = []
    for turn in range(args.turns):
        start = time.perf_counter()
        fit = bu.fit(bu.models.GaussianMixture(8), y, seed=turn, progress=False)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        peer = GaussianMixture(8, random_state=turn, tol=1e-5, max_iter=300).fit(y)
        theirs = time.perf_counter() - start
        few = y[:5000]
        mine = float(np.mean(bu.log_likelihood(fit, few).values))
        rows.append({"ours": ours, "peer": theirs, "log p, ours": mine, "log p, peer": peer.score(few)})
        print(json.dumps(rows[-1]), fit.converged, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "count", "atoms", "speed"))
    parser.add_argument("--lattices", type=int, default=10)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--atoms", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    rows = globals()[args.what](args)
    args.out.mkdir(exist_ok=True)
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    text = json.dumps({"settings": settings, "version": bu.__version__, "rows": rows}, indent=1)
    (args.out / f"crystallography_{args.what}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
