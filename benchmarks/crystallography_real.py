"""Local crystallography on measured atoms: ferroelectric domains, silicon defects, graphene from its image.

    python benchmarks/crystallography_real.py bfo atoms_bfo/
    python benchmarks/crystallography_real.py defects graphene_si_library/defects.csv
    python benchmarks/crystallography_real.py graphene graphene_stem/G-Si-2nm.npy

``bfo`` compares the off-centring of iron in BiFeO3, as the mixture's posterior mean and as measured, with the authors'
table and draws the domains. ``defects`` sorts the surroundings of silicon in graphene without labels and holds classes
against the authors' by the adjusted Rand index, scikit-learn's GaussianMixture beside it. ``graphene`` goes from an
image to atoms to classes; a bond joins the two sublattices. Tables and figures go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from calibration import commit
from scipy.spatial import cKDTree

import bayesunmix as bu

ERROR_PX = 0.5  # of positions that come without errors: about what refinement of such images leaves


def undisturbed(fit: bu.Fit, vectors: xr.Dataset) -> np.ndarray:
    """Posterior mean of the whole atoms' vectors without their measurement errors, at the mean of the parameters."""
    average = fit.posterior.mean(("chain", "draw"))
    y = vectors["vector"].values[vectors["complete"].values]
    errors = vectors["vector_cov"].values[vectors["complete"].values]
    share = fit.latent()["membership"].sel(statistic="mean").values[vectors["complete"].values]
    found = np.zeros_like(y)
    for k, (mean, own) in enumerate(zip(average["means"].values, average["covariances"].values, strict=True)):
        away = np.linalg.solve(own + errors, (y - mean)[..., None])
        found += share[:, [k]] * (mean + (own @ away)[..., 0])
    return found


def bfo(path: Path, out: Path) -> list[str]:
    """Off-centring of iron against the table, and domains."""
    species = {name: np.loadtxt(path / f"{name}_positions_refined.txt") for name in ("Bi", "Fe")}
    table = pd.concat([pd.DataFrame({"x": v[:, 0], "y": v[:, 1], "species": n}) for n, v in species.items()])
    vectors = bu.descriptors.neighbour_vectors(bu.atoms(table, error=ERROR_PX), 4, species=("Fe", "Bi"))
    tabulated = np.loadtxt(path / "result_refined.txt")
    fits = {
        f"{n} classes": bu.fit(bu.models.GaussianMixture(n, covariance="tied-positions"), vectors, progress=False)
        for n in (2, 4)
    }
    compared = bu.compare(fits)
    fit = fits[compared.attrs["preferred"]]
    whole = vectors["complete"].values
    middle = -undisturbed(fit, vectors).reshape(whole.sum(), 4, 2).mean(1)
    measured = bu.descriptors.off_centring(vectors)["displacement"].values[whole]
    distance, which = cKDTree(vectors["position"].values[whole][:, ::-1]).query(tabulated[:, :2])
    same = distance < 1e-3
    theirs = tabulated[same][:, [5, 4]]
    lines = [
        f"{whole.sum()} whole cells, {same.sum()} of {len(tabulated)} in the table. {compared.attrs['verdict']}",
        "",
    ]
    lines += ["| off-centring of iron | correlation along y | along x |", "|---|---|---|"]
    for name, ours in (("posterior mean", middle), ("as measured", measured)):
        r = [np.corrcoef(ours[which[same], axis], theirs[:, axis])[0, 1] for axis in range(2)]
        lines.append(f"| {name} | {r[0]:.4f} | {r[1]:.4f} |")
    bu.plot.displacements(fit, vectors).figure.savefig(out / "crystallography_bfo.png", dpi=200)
    bu.plot.classes(fit, vectors).figure.savefig(out / "crystallography_bfo_classes.png", dpi=200)
    return lines


def defects(path: Path, out: Path, most: int = 8) -> list[str]:
    """Silicon in graphene: classes of its three nearest bonds against the authors' types of defect."""
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture

    table = pd.read_csv(path)
    scale = (table["scan_size_pm"] / table["image_px"]).to_numpy()
    frame = pd.factorize(table["type"] + "/" + table["file"].astype(str) + "/" + table["defect"].astype(str))[0]
    plain = pd.DataFrame({"y": scale * table["row_px"], "x": scale * table["col_px"], "frame": frame})
    atoms = bu.atoms(plain.assign(species=table["element"]), error=ERROR_PX * scale, units="pm")
    bonds = bu.descriptors.neighbour_vectors(atoms.drop_vars("species"), 3, order="distance")
    silicon = (table["element"].to_numpy() == "Si")[bonds["index"].values] & bonds["complete"].values
    vectors = bu.descriptors.lengths_and_angles(bonds.isel(atom=np.flatnonzero(silicon)))
    label = table["type"].to_numpy()[vectors["index"].values]
    lengths = vectors.isel(feature=slice(3), other_feature=slice(3))
    y = lengths["vector"].values
    model = bu.models.GaussianMixture(2)
    fits = bu.sweep(model, lengths, n_components=range(2, most + 1), progress=False)
    exact = bu.sweep(model, y, n_components=range(2, most + 1), progress=False)
    compared = bu.compare(fits)
    index = lambda found: f"{adjusted_rand_score(label, found):.3f}"  # noqa: E731
    lines = [
        "| classes | bayesunmix | elpd behind the best | without errors | scikit-learn, median and range of 20 seeds "
        "| the highest likelihood of 200 starts | its BIC |",
        "|---" * 7 + "|",
    ]
    for n, (name, fit), plain in zip(range(2, most + 1), fits.items(), exact.values(), strict=True):
        shares = [one.latent()["membership"].sel(statistic="mean").values.argmax(1) for one in (fit, plain)]
        peers = [GaussianMixture(n, random_state=seed).fit(y) for seed in range(20)]
        theirs = np.percentile([adjusted_rand_score(label, peer.predict(y)) for peer in peers], [50, 0, 100])
        seeds = "{:.3f}, {:.3f} to {:.3f}".format(*theirs)
        every = GaussianMixture(n, n_init=200, init_params="random_from_data", max_iter=500, random_state=0).fit(y)
        behind = f"{compared.loc[name, 'elpd_diff']:.1f} ± {compared.loc[name, 'dse']:.1f}"
        mark = "" if fit.converged else " (not converged)"
        lines.append(
            f"| {n} | {index(shares[0])}{mark} | {behind} | {index(shares[1])} ({_log_density(plain, y):.1f}) "
            f"| {seeds} ({np.median([p.score(y) for p in peers]) * len(y):.1f}) "
            f"| {index(every.predict(y))} ({every.score(y) * len(y):.1f}) | {every.bic(y):.1f} |"
        )
    counts = pd.Series(label).value_counts()
    return [
        f"{len(y)} silicon atoms, three bond lengths each: {counts.to_dict()}. Adjusted Rand index, in brackets the "
        "log likelihood of all atoms (at the posterior mean, or of scikit-learn's point). Columns four to six know of "
        f"no errors. {compared.attrs['verdict']}",
        "",
        *lines,
    ]


def _log_density(fit: bu.Fit, y: np.ndarray) -> float:
    """Of all atoms at the posterior mean of weights, means and covariances."""
    from scipy.stats import multivariate_normal

    mean = fit.posterior.mean(("chain", "draw"))
    parts = zip(mean["weights"].values, mean["means"].values, mean["covariances"].values, strict=True)
    joint = [np.log(weight) + multivariate_normal(place, cov).logpdf(y) for weight, place, cov in parts]
    return float(np.logaddexp.reduce(joint, axis=0).sum())


def graphene(path: Path, out: Path) -> list[str]:
    """From the image to atoms to two classes, the sublattices: a bond joins one of each."""
    image = np.load(path)
    atoms = bu.descriptors.find_atoms(image, separation=18, threshold=2.5)
    vectors = bu.descriptors.neighbour_vectors(atoms, 3)
    fit = bu.fit(bu.models.GaussianMixture(2, covariance="tied-positions"), vectors, progress=False)
    share = fit.latent()["membership"].sel(statistic="mean").values
    label = np.where(np.isfinite(share).all(1), share.argmax(1), -1)
    neighbour = vectors["neighbour"].values
    known = (neighbour >= 0) & (label >= 0)[:, None] & (label[neighbour] >= 0)
    across = (label[neighbour] != label[:, None])[known].mean()
    shown = xr.DataArray(image, dims=("y", "x"))
    bu.plot.classes(fit, vectors, image=shown).figure.savefig(out / "crystallography_graphene.png", dpi=200)
    return [
        f"{atoms.sizes['atom']} atoms, {int(vectors['complete'].sum())} with three neighbours. {across:.3f} of "
        f"{known.sum() // 2} bonds between classified atoms join the two classes (1 for sublattices, .5 by chance). "
        f"Fit: {fit.diagnostics.attrs['verdict']}"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bfo", "defects", "graphene"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    plt.switch_backend("agg")
    lines = globals()[args.what](args.path, args.out)
    about = f"Version {bu.__version__} ({commit()}); positions that come without errors are given {ERROR_PX} px."
    text = "\n".join([about, "", *lines])
    print(text)
    (args.out / f"crystallography_{args.what}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
