"""The tiny world and its index."""

from tests.evaluation.full_index import full_index
from tests.evaluation.worlds import proof, tiny_index, tiny_world

__all__ = ["full_index", "proof", "tiny_index", "tiny_world"]
