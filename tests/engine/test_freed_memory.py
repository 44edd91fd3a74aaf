"""What is freed between pieces of work goes back to the system."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from symerge_dense.engine.freed_memory import giving_back
from symerge_dense.pipeline.profiling.file_merge import own_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems count memory in other ways")
def test_what_an_item_frees_is_given_back() -> None:
    held = list[torch.Tensor]()

    def between_items() -> int:
        """Memory after every second of many blocks, each too small to be mapped by itself, is freed."""
        blocks = [torch.ones(16_000) for _ in range(2000)]  # 64 kB each
        held[:] = blocks[::2]
        return own_memory(os.getpid())

    for number in giving_back(range(2)):
        if number == 0:
            kept = between_items()
    assert kept - own_memory(os.getpid()) > 40e6, "of 64 MB that are free below blocks in use"
