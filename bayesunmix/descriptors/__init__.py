"""From images and atoms to vectors with errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesunmix._contents import attach

if TYPE_CHECKING:
    from bayesunmix.descriptors.centring import off_centring as off_centring
    from bayesunmix.descriptors.finding import find_atoms as find_atoms
    from bayesunmix.descriptors.neighbours import bond_angles as bond_angles
    from bayesunmix.descriptors.neighbours import lengths_and_angles as lengths_and_angles
    from bayesunmix.descriptors.neighbours import neighbour_vectors as neighbour_vectors
    from bayesunmix.descriptors.tables import atoms as atoms

__all__ = ["atoms", "bond_angles", "find_atoms", "lengths_and_angles", "neighbour_vectors", "off_centring"]

# Opened when used: every fit imports this package, and finding atoms imports scipy.ndimage.
attach(
    __name__,
    {
        "atoms": "bayesunmix.descriptors.tables",
        "bond_angles": "bayesunmix.descriptors.neighbours",
        "find_atoms": "bayesunmix.descriptors.finding",
        "lengths_and_angles": "bayesunmix.descriptors.neighbours",
        "neighbour_vectors": "bayesunmix.descriptors.neighbours",
        "off_centring": "bayesunmix.descriptors.centring",
    },
    (),
)
