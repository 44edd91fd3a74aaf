"""Packages that only some packagings of NYUv2 need: imported when a file needs them, and missed in words."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from symerge_dense.datasets.nyuv2.mat import LABELED, MAPPING13, MAPPING40, SPLITS, NYUv2Mat, _check_13
from symerge_dense.datasets.nyuv2.parquet import NYUv2Parquet
from symerge_dense.datasets.nyuv2.readers import optional_import, read_mat
from symerge_dense.preparation.convert.manifest import PACKAGES
from symerge_dense.report.results import versions

REMEDY = r"install it with pip install 'symerge-dense\[convert\]'\.$"
SHARD = "train-00000-of-00001.parquet"
NEEDED = {"h5py": ["h5py"], "scipy": ["scipy", "scipy.io"], "pyarrow": ["pyarrow", "pyarrow.parquet", "pyarrow.types"]}


@pytest.fixture
def without(monkeypatch):
    """A call that makes a package one that is not installed."""

    def remove(package):
        for module in NEEDED[package]:
            monkeypatch.setitem(sys.modules, module, None)

    return remove


def touch(root, *names):
    """Empty files: what cannot be read at all is not looked into."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_package_that_is_there_is_imported():
    assert optional_import("scipy.io", "splits.mat") is scipy.io


def test_the_official_files_say_that_h5py_is_missing(tmp_path, without):
    without("h5py")
    with pytest.raises(ValueError, match=f"^h5py is needed for {LABELED}; {REMEDY}"):
        NYUv2Mat(touch(tmp_path, LABELED, SPLITS, MAPPING40), "train", {"depth": {}})


def test_a_file_of_matlab_says_that_scipy_is_missing(tmp_path, without):
    scipy.io.savemat(tmp_path / "depth.mat", {"depth": np.ones((2, 3))})
    assert read_mat(tmp_path / "depth.mat", "depth").shape == (2, 3)
    without("scipy")
    with pytest.raises(ValueError, match=f"^scipy is needed for depth.mat; {REMEDY}"):
        read_mat(tmp_path / "depth.mat", "depth")


def test_the_mapping_of_13_classes_says_that_scipy_is_missing(tmp_path, without):
    without("scipy")
    with pytest.raises(ValueError, match=f"^scipy is needed for {MAPPING13}; {REMEDY}"):
        _check_13(tmp_path / MAPPING13)


def test_a_parquet_shard_says_that_pyarrow_is_missing(tmp_path, without):
    without("pyarrow")
    with pytest.raises(ValueError, match=f"^pyarrow is needed for {SHARD}; {REMEDY}"):
        NYUv2Parquet(touch(tmp_path, f"data/{SHARD}"), "train", {"depth": {}})


def test_a_package_that_lacks_something_of_its_own_is_not_called_missing(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'numpy.removed'", name="numpy.removed")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match=r"numpy\.removed"):
        optional_import("h5py", LABELED)


REGISTRY_ALONE = """
import sys
sys.modules.update(dict.fromkeys(["h5py", "scipy", "pyarrow"]))
import symerge_dense.datasets.nyuv2.mat
from symerge_dense.registry import DATASETS
print(*DATASETS)
"""


def test_all_data_sets_are_registered_without_any_of_them():
    found = subprocess.run(
        [sys.executable, "-c", REGISTRY_ALONE],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert {"NYUv2", "NYUv2Mat", "NYUv2Parquet", "NYUDMT", "NYUDv2", "Rooms"} <= set(found.stdout.split())


def test_the_manifest_tells_of_the_packages_that_are_there(monkeypatch):
    assert {"numpy", "h5py", "scipy", "pyarrow"} <= set(versions(PACKAGES))
    installed = importlib.metadata.version

    def version(name):
        if name in NEEDED:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert set(versions(PACKAGES)) == {"python", "symerge_dense", "numpy"}
