"""Freed memory stays with the process under glibc; anywhere else nothing breaks."""

from __future__ import annotations

import platform

from attribution.allocator import keep_freed_memory


def test_glibc_agrees_and_others_are_left_alone() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
