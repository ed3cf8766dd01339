"""The tiny world and its index."""

from tests.evaluation.worlds import tiny_index, tiny_world

__all__ = ["tiny_index", "tiny_world"]
