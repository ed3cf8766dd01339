"""The panels of the page, top to bottom."""
