"""NYUv2's small packagings, written as they are published: Parquet shards, and folders of listed files."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io

from builders.nyu_scene import scene

BENCHMARK = (slice(45, 470), slice(40, 600))  # what 425 x 560 frames show of a whole one
PICTURE_FOLDERS = ("images", "segmentation", "normals", "depth")


# -- Parquet ----------------------------------------------------------------------------------------------------------
def nested(arrays, number):
    """Arrays of one shape as an Arrow column of nested lists."""
    stacked = np.stack(arrays)
    column = pa.array(stacked.reshape(-1), number)
    for length in stacked.shape[:0:-1]:
        column = pa.ListArray.from_arrays(np.arange(0, len(column) + 1, length, dtype=np.int32), column)
    return column


def feature(name, column, number):
    """The entry that the ``datasets`` library writes about an array column into the schema's metadata."""
    shape, kind = [], column.type
    values = column[:1]
    while pa.types.is_list(kind):
        shape.append(values.value_lengths()[0].as_py())
        values, kind = values.flatten(), kind.value_type
    return {"shape": shape, "dtype": number, "_type": f"Array{len(shape)}D"}


def table(rows, seed=0):
    """Rows (dicts of image, segmentation, depth, normal, all channels first) as the published table, with its noise."""
    rng = np.random.default_rng(seed)
    noise = [rng.random(row["depth"].shape, np.float32) for row in rows]
    columns = {name: nested([row[name] for row in rows], pa.float32()) for name in ("image", "depth", "normal")}
    columns["segmentation"] = nested([row["segmentation"] for row in rows], pa.int64())
    columns["noise"] = nested(noise, pa.float32())
    order = ("image", "segmentation", "depth", "normal", "noise")
    info = {
        "info": {
            "features": {
                name: feature(name, columns[name], "int64" if name == "segmentation" else "float32") for name in order
            }
        }
    }
    return pa.table({name: columns[name] for name in order}).replace_schema_metadata({"huggingface": json.dumps(info)})


def write_parquet(root, splits, shards=2, folder="data", row_group_size=None):
    """``{split: rows}`` as root/data/{split}-0000n-of-0000m.parquet; returns root."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        for number, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
            path = root / folder / f"{split}-{number:05}-of-{shards:05}.parquet"
            pq.write_table(table([rows[index] for index in part]), path, row_group_size=row_group_size)
    return root


# -- folders of listed files ------------------------------------------------------------------------------------------
def normal_picture(normal):
    """Unit vectors as 8-bit RGB, (n + 1) / 2; the zero vector becomes mid-grey."""
    return np.round((normal.astype(np.float64) + 1) / 2 * 255).astype(np.uint8)


def write_picture(path, rgb, quality=95):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rgb if rgb.ndim == 2 else rgb[..., ::-1]
    assert cv2.imwrite(
        str(path),
        pixels,
        [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    )


def lists(root, train, val):
    """gt_sets with the names of scenes; returns {name: scene number}. Names as in the archives, not in their order."""
    (root / "gt_sets").mkdir(parents=True, exist_ok=True)
    names = {index: f"img_{5001 + index}" for index in (*train, *val)}
    for split, indices in (("train", train), ("val", val)):
        (root / "gt_sets" / f"{split}.txt").write_text("".join(f"{names[index]}\n" for index in indices))
    return {name: index for index, name in names.items()}


def frame(index, cropped):
    """image, label40, depth, normal of a scene, whole or 425 x 560."""
    whole, place = scene(index), BENCHMARK if cropped else ...
    return whole.image[place], whole.label40[place], whole.depth[place], whole.normal[place]


def write_folders(root, train, val, cropped, image_suffix, write_targets):
    for folder in PICTURE_FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, index in lists(root, train, val).items():
        image, label, depth, normal = frame(index, cropped)
        write_picture(root / "images" / f"{name}{image_suffix}", image)
        write_targets(name, label, depth, normal)
    return root


def write_nyud_mt(root, train=(1, 0), val=(2,), cropped=False):
    """Vandenhende's NYUD_MT: scenes ``train`` and ``val`` in that order; returns root."""

    def targets(name, label, depth, normal):
        write_picture(root / "segmentation" / f"{name}.png", label)
        np.save(root / "depth" / f"{name}.npy", depth)
        np.save(root / "normals" / f"{name}.npy", normal)

    return write_folders(root, train, val, cropped, ".jpg", targets)


def write_astmt(root, train=(1, 0), val=(2,), cropped=False):
    """ASTMT's NYUD_MT: as ``write_nyud_mt``, labels and depth as .mat, normals as JPEG."""

    def targets(name, label, depth, normal):
        scipy.io.savemat(root / "segmentation" / f"{name}.mat", {"segmentation": label}, do_compression=True)
        scipy.io.savemat(root / "depth" / f"{name}.mat", {"depth": depth}, do_compression=True)
        write_picture(root / "normals" / f"{name}.jpg", normal_picture(normal))

    return write_folders(root, train, val, cropped, ".jpg", targets)


def write_nyudv2(root, train=(1, 0), val=(2,), cropped=True):
    """ATRC's and InvPT's NYUDv2: PNG images, labels and normals, 425 x 560 frames."""

    def targets(name, label, depth, normal):
        write_picture(root / "segmentation" / f"{name}.png", label)
        write_picture(root / "normals" / f"{name}.png", normal_picture(normal))
        np.save(root / "depth" / f"{name}.npy", depth)

    return write_folders(root, train, val, cropped, ".png", targets)
