"""Packaging of symerge_dense: the oldest versions meant to work. The tested ones are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+?)"$', (ROOT / "symerge_dense/__init__.py").read_text("utf-8"), re.MULTILINE)
if VERSION is None:
    raise ValueError('symerge_dense/__init__.py states no version; add a line like __version__ = "0.1.0".')

# Reading data as others packaged them: HDF5 and MATLAB files, Parquet, OpenEXR (which OpenCV's wheels leave out).
CONVERT = ["h5py>=3.12", "scipy>=1.15", "pyarrow>=19", "OpenEXR>=3.3"]
# `symerge export --to onnx`, and `symerge predict` on what it writes. PyTorch imports onnxscript for its exporter.
EXPORT = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]
RAY = ["ray>=2.40"]  # `--on ray` of studies and comparisons
PARTS = ("_base_", "ablation", "experts", "merge", "studies")
CONFIGS = ["symerge_dense.configs", *(f"symerge_dense.configs.{part}" for part in PARTS)]

setup(
    name="symerge-dense",
    version=VERSION[1],
    description="Merge dense-prediction experts that share a backbone into one multi-task model, without labels",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={"Paper": "https://arxiv.org/abs/2412.19098"},
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["symerge_dense", "symerge_dense.*"]), *CONFIGS],
    package_dir={"symerge_dense.configs": "configs"},  # installed, `symerge train rooms_symerge` finds them there
    entry_points={"console_scripts": ["symerge = symerge_dense.commands.cli:main"]},
    package_data={"symerge_dense": ["py.typed"], "": ["*.pyi", "*.css", "*.js"]},  # a room's public names; the page
    zip_safe=False,
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "onedl-mmengine>=0.10.12",
        "onedl-mmcv>=2.3.6",
        "onedl-mmsegmentation>=1.4.2",
        "ftfy>=6.3",  # onedl-mmsegmentation imports it and regex whatever head is asked for
        "regex>=2024.11.6",
        "timm>=1.0.15",
        "huggingface_hub>=0.30",  # timm requires it, too
        "einops>=0.8",
        "albumentations>=2.0.5",
        # Nothing here opens a window, and albumentations requires the headless one. mmcv and mmsegmentation require
        # opencv-python, which installs the same files: constraints.txt pins the two to one version.
        "opencv-python-headless>=4.11",
        "safetensors>=0.5",
        "rich>=13.9",
        "matplotlib>=3.10",
        "numpy>=2.1",
        "pillow>=11",
        "lazy-loader>=0.4",
    ],
    extras_require={
        "convert": CONVERT,
        "export": EXPORT,
        "ray": RAY,
        "dev": [
            *CONVERT,
            *EXPORT,
            *RAY,
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "pytest-cov>=7",
            "hypothesis>=6.100",  # draws the damage to files in tests/fuzz
            "tensorboard>=2.18",  # MMEngine's TensorboardVisBackend
            "playwright>=1.49",  # drives the machine's own Chromium in the tests of the report page
            "nbclient>=0.10",  # the notebooks are run by a test
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "pre-commit>=4",
            "ruff>=0.9",
            "mypy>=1.14",
        ],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27", "ruff>=0.9"],
    },
)
