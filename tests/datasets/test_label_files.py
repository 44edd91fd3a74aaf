"""Numbers of label files: containers under a wrong name, large and damaged pictures, links in HDF5."""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np
import pytest
from builders.photos import cut_off
from PIL import Image

from symerge_dense.datasets.label_files import read_label
from symerge_dense.datasets.nyuv2.readers import read_class_map

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_arrays_under_the_other_suffix_are_told(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, VALUES)
    with pytest.raises(ValueError, match=r"a\.npz: is a \.npy file; name it so\.$"):
        read_label(tmp_path / "a.npz")
    with (tmp_path / "b.npy").open("wb") as file:
        np.savez(file, depth=VALUES)
    with pytest.raises(ValueError, match=r"b\.npy: is a \.npz file; name it so\.$"):
        read_label(tmp_path / "b.npy")


def test_a_key_of_hdf5_is_looked_up_and_the_file_not_listed(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scene/depth"], file["other"] = VALUES, VALUES + 1
    monkeypatch.setattr(h5py.Group, "visititems", lambda *_: pytest.fail("the whole file is listed"))
    for key in ("scene/depth", "/scene/depth"):
        np.testing.assert_array_equal(read_label(tmp_path / "a.h5", key), VALUES)
    monkeypatch.undo()
    for key in ("scene", "scene//depth", "other/depth", "scene/depth/x", "/"):
        with pytest.raises(ValueError, match=r"a\.h5: holds other, scene/depth; there is no '.*': give key= one"):
            read_label(tmp_path / "a.h5", key)


def test_links_in_hdf5_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["group/depth"] = VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mine"] = VALUES
        file["out"] = h5py.ExternalLink("secret.h5", "group/depth")
        file["folder"] = h5py.ExternalLink("secret.h5", "group")
        file["soft"] = h5py.SoftLink("/out")
    for key in ("out", "folder/depth", "soft"):
        with pytest.raises(ValueError, match=f"holds mine; there is no '{key}'"):
            read_label(tmp_path / "a.h5", key)


def test_a_picture_of_more_pixels_than_any_is_told(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    )
    with pytest.raises(ValueError, match=r"^\S*a\.png: Image size .* make the image smaller\.$"):
        read_label(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: not a readable picture"):
        read_class_map(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_damaged_palette_label_is_not_read_as_colours(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 4, (96, 96), np.uint8)
    label = Image.fromarray(noise)
    if mode == "P":
        label.putpalette(bytes(range(255, -1, -1)) * 3)
    label.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), noise)
    cut_off(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: not a readable label file \(.*[Tt]runcated.*\); replace it"):
        read_label(tmp_path / "a.png")
