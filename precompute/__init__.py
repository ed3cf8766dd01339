"""Makes indexes and trains the embedded model: one verb per file."""
