"""From images and atoms to vectors with errors."""

from bayesunmix.descriptors.centring import off_centring
from bayesunmix.descriptors.finding import find_atoms
from bayesunmix.descriptors.neighbours import bond_angles, lengths_and_angles, neighbour_vectors
from bayesunmix.descriptors.tables import atoms

__all__ = ["atoms", "bond_angles", "find_atoms", "lengths_and_angles", "neighbour_vectors", "off_centring"]
