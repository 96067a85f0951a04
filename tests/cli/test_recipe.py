"""Recipes: what is written is what is read, to the bit, and what is no recipe is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bayesunmix import recipe as recipes


@dataclasses.dataclass(frozen=True)
class ToyModel:
    n_states: int
    scale: Any = None
    kind: str = "normal"


CLASSES = recipes.choices([ToyModel, int])
PLAIN = recipes.Recipe(data={"path": "a.nc", "hash": "12"}, model={"name": "toy-model"}, method={"name": "svi"}, seed=7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("LinearUnmixing", "linear-unmixing"), ("SVI", "svi"), ("ProbabilisticPCA", "probabilistic-pca")],
)
def test_kebab(name: str, expected: str) -> None:
    assert recipes.kebab(name) == expected


def test_only_dataclasses_are_choices() -> None:
    assert list(CLASSES.items()) == [("toy-model", ToyModel)]


def test_settings_survive_the_file_to_the_last_bit(tmp_path: Path) -> None:
    scale = np.random.default_rng(0).normal(size=(2, 5)) / 3
    model = ToyModel(4, scale=scale)
    path = tmp_path / "recipe.toml"
    recipes.write(dataclasses.replace(PLAIN, model=recipes.section(model)), path)
    again = recipes.build(recipes.read(path).model, CLASSES)
    assert again.n_states == 4
    assert again.kind == "normal"
    np.testing.assert_array_equal(again.scale, scale)


def test_what_is_not_set_is_left_out() -> None:
    assert recipes.section(ToyModel(2)) == {"name": "toy-model", "n_states": 2, "kind": "normal"}


def test_open_ends_of_a_crop_survive_the_file(tmp_path: Path) -> None:
    ends = recipes.parse_crop(["energy=700:", " y =:30.5"])
    assert ends == {"energy": [700.0, np.inf], "y": [-np.inf, 30.5]}
    recipes.write(dataclasses.replace(PLAIN, data={**PLAIN.data, "crop": ends}), tmp_path / "r.toml")
    assert recipes.read(tmp_path / "r.toml").data["crop"] == ends


@pytest.mark.parametrize("text", ["energy", "energy=700", "energy=a:b", "=1:2", "energy=1:2:3"])
def test_what_is_no_crop(text: str) -> None:
    with pytest.raises(ValueError, match="expected DIM=LOW:HIGH"):
        recipes.parse_crop([text])


def test_crop_keeps_both_ends_in_units_of_the_axis() -> None:
    image = xr.DataArray(np.zeros((4, 6)), {"energy": [60.0, 50, 40, 30, 20, 10]}, ("y", "energy"))
    cropped = recipes.crop(image, {"energy": [20.0, 40.0], "y": [1.0, np.inf]})
    assert cropped.coords["energy"].values.tolist() == [40, 30, 20]
    assert cropped.sizes["y"] == 3
    with pytest.raises(ValueError, match="leaves nothing of 'energy', which runs from 60 to 10"):
        recipes.crop(image, {"energy": [70.0, 80.0]})
    with pytest.raises(ValueError, match="cannot crop along 'x'"):
        recipes.crop(image, {"x": [0.0, 1.0]})


def test_settings_are_read_as_toml_and_else_as_text() -> None:
    found = recipes.parse_settings(["a=3", "b = 0.5", "c=true", "d=two words", "e=[1, 2]"])
    assert found == {"a": 3, "b": 0.5, "c": True, "d": "two words", "e": [1, 2]}
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        recipes.parse_settings(["nothing"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "toy-modl"}, "there is no 'toy-modl'; there are toy-model"),
        ({"name": "toy-model", "scale": 1.0}, "toy-model needs n_states"),
        ({"name": "toy-model", "n_states": 2, "size": 3}, "has no setting size; it has n_states, scale"),
    ],
)
def test_unknown_names_list_the_known_ones(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.build(section, CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "not a recipe"),
        ("seed = 1", "lacks or should not have data, method, model"),
        ("seed=1\nmore=2\n[data]\n[model]\n[method]", "lacks or should not have more"),
        ("seed=1\n[data]\npath='a'\n[model]\nname='a'\n[method]\nname='b'", r"\[data\] must hold path, hash"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        recipes.read(path)


def test_posterior_hash_sees_every_bit() -> None:
    draws = xr.Dataset({"b": ("draw", [1.0, 2.0]), "a": ("draw", [3.0, 4.0])})
    nudged = draws.assign(a=("draw", [3.0, np.nextafter(4.0, 5.0)]))
    reordered = draws[["a", "b"]]
    assert recipes.posterior_hash(draws) == recipes.posterior_hash(reordered)
    assert recipes.posterior_hash(draws) != recipes.posterior_hash(nudged)
