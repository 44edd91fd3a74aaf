"""What every test starts from: few threads, no network, no screen, and the same random numbers."""

import os
import sys

# Set before torch, OpenMP and matplotlib are loaded; subprocesses (two-process tests) inherit it.
# One thread: tensors here are tiny, and several processes of several threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Compiled files are kept. Else compilation is a fifth of the time of a short command, in each of a hundred processes,
# and a third of the time to collect tests. What tests of this process write and import is compiled anew if so asked.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
ANEW, sys.dont_write_bytecode = sys.dont_write_bytecode, False

# What tests write need not outlive a power cut, and each of thousands of files would wait for the disk. tests/faults
# sees that files are synced, and lets it fail.
os.fsync = os.fstat

import random

import numpy as np
import pytest
import torch
from builders import lighter_libraries  # noqa: F401 - for what it changes
from mmengine.logging import MMLogger

from symerge_dense.registry import imported

torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # seconds; a data worker that failed is waited for so long
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
MMLogger.get_instance("mmengine", log_level="ERROR")  # outside a Runner, which has its own logger


def pytest_collection_finish():
    sys.dont_write_bytecode = ANEW


@pytest.fixture(autouse=True)
def seeded():
    """A test's random numbers do not depend on which tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def no_plugins_of_other_tests():
    """Configs are written without the plug-ins that other tests of this process imported: their folders are gone."""
    imported.clear()
