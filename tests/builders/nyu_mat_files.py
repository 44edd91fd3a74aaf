"""The official files of NYUv2, small and of true structure: the labeled .mat (HDF5), its companions, and normals."""

import os
import shutil
import tarfile

import cv2
import h5py
import numpy as np
import scipy.io

from builders.nyu_scene import MAP_894_TO_40, scene

LABELED = "nyu_depth_v2_labeled.mat"
USERBLOCK = 512  # bytes before the HDF5 file proper, where MATLAB keeps the header of its older format
# What class13Mapping.mat says of classes 1..40, counted from 1; three tests compare with it.
LABELS13 = np.array(
    [
        [
            12,
            5,
            6,
            1,
            4,
            9,
            10,
            12,
            13,
            6,
            8,
            6,
            13,
            10,
            6,
            13,
            6,
            7,
            7,
            5,
            7,
            3,
            2,
            6,
            11,
            7,
            7,
            7,
            7,
            7,
            7,
            6,
            7,
            7,
            7,
            7,
            7,
            7,
            6,
            7,
        ]
    ],
    np.uint8,
)
NAMES13 = [
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
]
GREY = (slice(300, 306), slice(400, 410))  # pixels that the mask calls valid and that hold no direction
PURPLE = (128, 0, 128)  # what stands where the mask is 0: decoded, it would be a wall that faces us


def write_mat(root, count=3, train=(1, 2), test=None, normals="png", chunked=False):
    """Scenes 0..count-1 as all official files in ``root``, which is returned.

    Args:
        train, test: image numbers counted from 1, in the order of splits.mat; test None: all that are not in train.
        normals: 'png', 'tgz', or None for none.
        chunked: chunks that reach over images, compressed, instead of one contiguous block.
    """
    root.mkdir(parents=True, exist_ok=True)
    frames = [scene(index) for index in range(count)]
    write_labeled(root / LABELED, frames, chunked)
    rest = [number for number in range(1, count + 1) if number not in train]
    write_splits(root, train, rest if test is None else test)
    cells = np.array([[f"class {number}" for number in range(1, 41)]], object)
    scipy.io.savemat(
        root / "classMapping40.mat",
        {
            "mapClass": MAP_894_TO_40[None],
            "className": cells,
            "allClassName": np.array([[f"thing {number}" for number in range(1, 895)]], object),
            "mapToNYUSuperClass": (np.arange(40) % 4 + 1).astype(np.uint8)[None],
        },
    )
    write_class13(root)
    if normals is not None:
        write_normals(root, frames)
    if normals == "tgz":
        pack_normals(root)
    return root


def write_splits(root, train, test):
    scipy.io.savemat(
        root / "splits.mat",
        {"trainNdxs": np.array(train, np.uint16).reshape(-1, 1), "testNdxs": np.array(test, np.uint16).reshape(-1, 1)},
    )


def write_class13(root, labels=LABELS13):
    scipy.io.savemat(
        root / "class13Mapping.mat", {"classMapping13": {"labels13": labels, "classNames": np.array([NAMES13], object)}}
    )


# -- the large one ----------------------------------------------------------------------------------------------------
def write_labeled(path, frames, chunked=False):
    """``frames`` as MATLAB 7.3 writes them: its H x W x 3 x N, column by column, is (N, 3, W, H) to everybody else."""
    arrays = {
        "images": np.stack([frame.image.transpose(2, 1, 0) for frame in frames]),
        "depths": np.stack([frame.depth.T for frame in frames]),
        "rawDepths": np.stack([(frame.depth * frame.normal.any(-1)).T for frame in frames]),
        "labels": np.stack([frame.label894.T for frame in frames]),
        "instances": np.stack([(frame.label894 > 0).astype(np.uint8).T for frame in frames]),
        "accelData": np.zeros((4, len(frames)), np.float32),
    }
    with h5py.File(path, "w", userblock_size=USERBLOCK) as file:
        for name, array in arrays.items():
            chunks = (1, 3, 64, 240) if name == "images" else (2, 64, 240)
            storage = {"chunks": chunks, "compression": 3} if chunked and array.ndim > 2 else {}
            kind = {"u1": "uint8", "u2": "uint16", "f4": "single"}[array.dtype.str[1:]]
            file.create_dataset(name, data=array, **storage).attrs["MATLAB_class"] = np.bytes_(kind)
        write_cells(file, "names", [f"thing {number}" for number in range(1, 895)])
        write_cells(file, "scenes", [f"room_{index:04}" for index in range(len(frames))])
        write_cells(file, "sceneTypes", ["room"] * len(frames))
    write_header(path)


def write_cells(file, name, texts):
    """A MATLAB column of strings: references to columns of UTF-16 numbers that lie in #refs#."""
    group = file.require_group("#refs#")
    references = []
    for number, text in enumerate(texts):
        column = np.array([[ord(letter)] for letter in text], np.uint16)
        references.append(group.create_dataset(f"{name}{number}", data=column).ref)
    cells = file.create_dataset(name, (1, len(texts)), dtype=h5py.ref_dtype)
    cells[0] = references
    cells.attrs["MATLAB_class"] = np.bytes_("cell")


def write_header(path):
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2015 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write((text.ljust(116) + bytes(8) + b"\x00\x02IM").ljust(USERBLOCK, b"\x00"))


# -- normals ----------------------------------------------------------------------------------------------------------
def write_normals(root, frames):
    """normals_gt/{normals,masks}/0000.png and on: numbered from 0, unlike the splits."""
    for part in ("normals", "masks"):
        (root / "normals_gt" / part).mkdir(parents=True)
    for index, frame in enumerate(frames):
        known = frame.normal.any(-1)
        picture = np.round((frame.normal.astype(np.float64) + 1) / 2 * 255).astype(np.uint8)
        picture[~known], picture[GREY] = PURPLE, 127
        for part, pixels in (("normals", picture[..., ::-1]), ("masks", known.astype(np.uint8) * 255)):
            assert cv2.imwrite(str(root / "normals_gt" / part / f"{index:04}.png"), pixels)


def pack_normals(root):
    """normals_gt.tgz in place of the folder normals_gt."""
    folder = root / "normals_gt"
    with tarfile.open(root / "normals_gt.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(folder, "normals_gt")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def link_copy(official, folder):
    """A copy in ``folder`` that may be damaged: pictures are links until somebody replaces them."""
    root = folder / "copy"
    shutil.copytree(official, root, copy_function=os.link)
    for path in root.glob("*.mat"):
        if path.name != LABELED:
            shutil.copy2(official / path.name, folder / "own")
            os.replace(folder / "own", path)
    return root


def copy_without_normals(official, folder):
    """The same without pictures of normals."""
    return shutil.copytree(
        official, folder / "bare", ignore=shutil.ignore_patterns("normals_gt*"), copy_function=os.link
    )
