"""Whence: which training images made this picture? Attribution by unlearning, for text-to-image."""
