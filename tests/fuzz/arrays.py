"""Readers of pictures, arrays and data sets."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import OpenEXR
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
from builders.nyu_other_files import nested
from builders.pipeline_tiny import FRAME, write_nyuv2
from PIL import Image

from fuzz.reader import Reader
from symerge_dense.adaptation.expert_labels import CachedLabels
from symerge_dense.datasets import checksums
from symerge_dense.datasets.array_checksums import NAME, array_checksum, read_checksums, write_checksums
from symerge_dense.datasets.image_files import image_size, read_image, size_if_whole
from symerge_dense.datasets.label_files import read_label
from symerge_dense.datasets.mtan_layout import read_array
from symerge_dense.datasets.nyuv2.mat import LabeledMat
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.datasets.nyuv2.normals import normals_folder
from symerge_dense.datasets.nyuv2.parquet_reader import ColumnType, ParquetColumn, row_groups
from symerge_dense.datasets.nyuv2.readers import read_class_map, read_mat, read_picture
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.inference.sources import Clip, Source
from symerge_dense.preparation.convert.export import is_whole

SIZE = (12, 16)
Make = Callable[[Path], Sequence[Path]]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
CLASSES = RNG.integers(0, 9, SIZE, np.uint8)
DEPTH = RNG.random(SIZE, np.float32) + 1


def digest(array: Any) -> str:
    found = np.ascontiguousarray(array)
    return hashlib.sha256(f"{found.dtype}{found.shape}".encode() + found.tobytes()).hexdigest()


def saved(*arrays: Any) -> Make:
    """A maker of .npy files."""

    def make(folder: Path) -> Sequence[Path]:
        paths = [folder / f"{number}.npy" for number in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array, allow_pickle=False)
        return paths

    return make


def pictures(suffix: str, *images: Image.Image, **options: Any) -> Make:
    """A maker of pictures."""

    def make(folder: Path) -> Sequence[Path]:
        paths = [folder / f"{number}{suffix}" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            image.save(path, **options)
        return paths

    return make


def palette() -> Image.Image:
    image = Image.fromarray(CLASSES, "P")
    image.putpalette([value for value in range(256) for _ in range(3)])
    return image


RGB, GREY, RGBA = (
    Image.fromarray(PIXELS),
    Image.fromarray(CLASSES),
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]])),
)
DEEP = Image.fromarray(CLASSES.astype(np.uint16) * 1000)


def any_picture(folder: Path) -> Sequence[Path]:
    paths = [*pictures(".png", RGB, GREY, RGBA, palette(), DEEP)(folder)]
    for suffix, options in {
        ".jpg": {},
        ".webp": {},
        ".tif": {"compression": "tiff_lzw"},
        ".bmp": {},
        ".ppm": {},
    }.items():
        RGB.save(folder / f"a{suffix}", **options)
        paths.append(folder / f"a{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(folder / "turned.jpg", exif=exif, progressive=True)
    return [*paths, folder / "turned.jpg"]


def picture(path: Path) -> Any:
    """All that is asked of a photo. Sizes before and after decoding must be the same."""
    pixels = read_image(path)
    if (size := image_size(path)) != pixels.shape[:2]:
        raise AssertionError(f"{size} before decoding, {pixels.shape} after it")
    return pixels, size_if_whole(path)


def npz(folder: Path) -> Sequence[Path]:
    np.savez(folder / "one.npz", label=CLASSES)
    np.savez_compressed(folder / "two.npz", label=CLASSES)
    return [folder / "one.npz", folder / "two.npz"]


def hdf5(folder: Path) -> Sequence[Path]:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("group/label", data=CLASSES, compression="gzip", fletcher32=True)
    with h5py.File(folder / "b.h5", "w") as file:
        file["label"] = DEPTH
        file["link"] = h5py.ExternalLink("a.h5", "group/label")
    return [folder / "a.h5", folder / "b.h5"]


def exr(folder: Path) -> Sequence[Path]:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Y": DEPTH}) as file:
        file.write(str(folder / "a.exr"))
    return [folder / "a.exr"]


def mat(folder: Path) -> Sequence[Path]:
    for name, packed in (("a.mat", False), ("b.mat", True)):
        content = {"depth": DEPTH, "name": np.array([["x"]], object), "more": {"labels": CLASSES}}
        scipy.io.savemat(folder / name, content, do_compression=packed)
    return [folder / "a.mat", folder / "b.mat"]


def labeled_mat(folder: Path) -> Sequence[Path]:
    shapes = {
        "images": (np.uint8, (2, 3, 640, 480)),
        "depths": (np.float32, (2, 640, 480)),
        "labels": (np.uint16, (2, 640, 480)),
    }
    with h5py.File(folder / "labeled.mat", "w", userblock_size=512) as file:
        for name, (kind, shape) in shapes.items():
            file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]), compression=9, fillvalue=1)[:] = 1
    return [folder / "labeled.mat"]


def read_labeled(path: Path) -> Any:
    file = LabeledMat(path)
    return [file.read(name, number) for name in ("images", "depths", "labels") for number in range(min(file.count, 2))]


COLUMN = {"depth": ColumnType(3, "floating point")}


def parquet(folder: Path) -> Sequence[Path]:
    rows = [DEPTH[None] + number for number in range(3)]
    paths = [folder / "train-00000-of-00001.parquet", folder / "plain.parquet"]
    pq.write_table(pa.table({"depth": nested(rows, pa.float32())}), paths[0], row_group_size=2)
    pq.write_table(pa.table({"depth": nested(rows, pa.float32())}), paths[1], compression="none", use_dictionary=False)
    return paths


def read_parquet(path: Path) -> Any:
    groups = row_groups([path], COLUMN)
    column = ParquetColumn(groups, "depth")
    return [column[row] for row in range(min(groups[-1].end, 4))] if groups else []


def archive(folder: Path) -> Sequence[Path]:
    import tarfile

    for part in ("normals", "masks"):
        (folder / "normals_gt" / part).mkdir(parents=True)
        RGB.save(folder / "normals_gt" / part / "0001.png")
    with tarfile.open(folder / "normals_gt.tgz", "w:gz") as file:
        file.add(folder / "normals_gt", "normals_gt")
    shutil.rmtree(folder / "normals_gt")
    return [folder / "normals_gt.tgz"]


def unpacked(path: Path) -> Any:
    """What came out of the archive, all of it below the folder; the next input starts without."""
    folder = normals_folder(path.parent)
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    links = [file for file in folder.rglob("*") if file.is_symlink()]
    shutil.rmtree(folder)
    if links:
        raise AssertionError(f"links were unpacked: {links}")
    return found


def film(folder: Path) -> Sequence[Path]:
    path = folder / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (32, 24))
    for shift in range(3):
        writer.write(np.roll(np.repeat(np.repeat(PIXELS, 2, 0), 2, 1), shift, 1))
    writer.release()
    return [path]


def read_film(path: Path) -> Any:
    return [(frame.fault, frame.index) for frame in Clip(Source("video", str(path), "a")).frames(limit=8)]


def rooms_frames(folder: Path) -> Sequence[Path]:
    Rooms("val", folder / "rooms", 2, {"depth": {}}, size=(32, 48))
    return sorted((folder / "rooms").rglob("depth.npy"))


def read_rooms(path: Path) -> Any:
    """The field is damaged after the set was opened, which would render it again, and before a data worker opens it."""
    rooms = Rooms("val", path.parent.parent / "rooms", 2, {"depth": {}}, size=(32, 48))
    field = rooms.folder / "depth.npy"
    sound = field.read_bytes()
    try:
        shutil.copy(path, field)
        rooms._open.clear()
        return rooms.target(1, "depth")
    finally:
        field.write_bytes(sound)


def prepared_checksums(folder: Path) -> Sequence[Path]:
    """The list of a prepared split, whose arrays lie where the damaged one will, and half a list."""
    split = folder / "train"
    write_nyuv2(folder, {"train": 2})
    found = {str(path.relative_to(split)): array_checksum(read_array(path)) for path in split.rglob("*.npy")}
    split.rename(folder / "damaged")
    paths = [folder / NAME, folder / "half" / NAME]
    for path, part in zip(paths, (found, {name: value for name, value in found.items() if "0" in name}), strict=True):
        path.parent.mkdir(exist_ok=True)
        write_checksums(path.parent, part)
    return paths


def read_prepared(path: Path) -> Any:
    """All of the split, which the set of data knows as its train; then a conversion that goes on."""
    (split := path.parent.parent / "train").symlink_to(path.parent.name)
    try:
        frames = NYUv2(split.parent, "train", {"segmentation": {}, "depth": {}, "normals": {}}, size=FRAME)
        found = [set(frames[index]) for index in range(len(frames))]
        write_checksums(split, kept := read_checksums(split))
        if read_checksums(split) != kept:
            raise AssertionError("a list that was written is read as another")
        return found
    finally:
        split.unlink()


def frame_checksum(folder: Path) -> Sequence[Path]:
    """Of an array, which lies where the damaged one will."""
    array = folder / "damaged" / "depth.npy"
    array.parent.mkdir()
    np.save(array, DEPTH)
    checksums.write_checksum(array)
    return [checksums.checksum_file(array).rename(folder / "depth.npy.crc32")]


def read_frame_checksum(path: Path) -> bool:
    checksums._compared.clear()
    return checksums.is_changed(path.with_suffix(""))


def read_cached(path: Path) -> Any:
    return CachedLabels(path.parent, {path.stem: None})._label(path.stem, 1)


READERS = [
    Reader("prepared .npy", "npy", saved(DEPTH, CLASSES, PIXELS), lambda path: np.array(read_array(path))),
    Reader("kept .npy of a conversion", "npy", saved(DEPTH), lambda path: is_whole(path, SIZE)),
    Reader("label .npy", "npy", saved(DEPTH, CLASSES, DEPTH.astype(">f8")), read_label),
    Reader("label .npz", "zip", npz, read_label),
    Reader("label .npz, its bytes", "bytes", npz, read_label, digest, share=0.5),
    Reader("label .h5", "bytes", hdf5, read_label, share=0.7),
    Reader("label .exr", "bytes", exr, read_label),
    Reader("label .png", "png", pictures(".png", GREY, palette(), DEEP, RGB), read_label),
    Reader("label .tif", "bytes", pictures(".tif", GREY, DEEP, Image.fromarray(DEPTH)), read_label),
    Reader("photo", "png", any_picture, picture),
    Reader("picture of a listed set", "png", pictures(".png", RGB, palette(), GREY), read_picture),
    Reader("class map", "png", pictures(".png", palette(), GREY, DEEP), read_class_map),
    Reader(
        "photo .png, its bytes", "bytes", pictures(".png", RGB, RGBA, palette(), GREY), read_image, digest, share=0.5
    ),
    Reader("label .png, its bytes", "bytes", pictures(".png", GREY, DEEP, palette()), read_label, digest, share=0.5),
    Reader("class map, its bytes", "bytes", pictures(".png", palette()), read_class_map, digest, share=0.5),
    Reader(
        "picture of a listed set, its bytes", "bytes", pictures(".png", RGB, palette()), read_picture, digest, share=0.5
    ),
    Reader("photo .jpg", "bytes", pictures(".jpg", RGB, GREY), picture),
    Reader("video", "bytes", film, read_film, share=0.3),
    Reader(".mat", "bytes", mat, lambda path: read_mat(path, "depth")),
    Reader("labeled .mat", "bytes", labeled_mat, read_labeled, share=0.1),
    Reader(".parquet", "bytes", parquet, read_parquet),
    Reader("normals_gt.tgz", "tar", archive, unpacked, share=0.7),
    Reader("normals_gt.tgz, its bytes", "bytes", archive, unpacked, str, share=0.5),
    Reader("checksums.json of prepared data", "json", prepared_checksums, read_prepared, share=0.5),
    Reader("frames of rooms", "npy", rooms_frames, read_rooms, share=0.5),
    Reader("checksum of a frames' file", "bytes", frame_checksum, read_frame_checksum, share=0.3),
    Reader("cached labels", "npy", saved(np.stack([DEPTH[None]] * 2).astype(np.float16)), read_cached),
]
