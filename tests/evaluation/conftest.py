"""The tiny world and its index."""

from tests.evaluation.worlds import proof, tiny_index, tiny_world

__all__ = ["proof", "tiny_index", "tiny_world"]
