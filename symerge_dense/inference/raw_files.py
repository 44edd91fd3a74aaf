"""Predictions as files of numbers, and the words with which ``FolderDataset`` reads them back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from symerge_dense.datasets.image_files import SUFFIXES, is_hidden
from symerge_dense.fileio import atomic_write, optional_import, write_text
from symerge_dense.inference.pictures import as_row
from symerge_dense.inference.sources import Source
from symerge_dense.tasks.base import DenseTask

RawKind = Literal["png", "npz", "exr"]
LIST = "images.txt"  # the images of a folder that were predicted, where not all were
NPZ = "npz"  # folder of .npz files, which hold all tasks
CHANNELS = {"png": (1, 3), "exr": (1, 3)}
EXR_NAMES = {1: "Y", 3: "RGB"}


def raw_folders(kind: RawKind, tasks: Mapping[str, DenseTask]) -> list[str]:
    """Folders, within that of all outputs, that ``write_raw`` writes to.

    Args:
        kind: of the files.
        tasks: {name: task}.
    """
    return [NPZ] if kind == "npz" else list(tasks)


def check_raw(kind: RawKind, tasks: Mapping[str, DenseTask]) -> None:
    """Refuse what the files could not hold, before anything is computed.

    Args:
        kind: of the files.
        tasks: {name: task}.

    Raises:
        ValueError: a task has other channels, or the package that writes EXR is not installed.
    """
    if kind == "exr" and not all(task.class_map for task in tasks.values()):
        optional_import("OpenEXR", "--raw exr")
    for name, task in tasks.items():
        if kind in CHANNELS and not task.class_map and task.channels not in CHANNELS[kind]:
            raise ValueError(
                f"task {name!r} has {task.channels} channels, and {kind.upper()} files hold 1 or 3; take --raw npz."
            )


def write_raw(
    folder: Path, name: str, kind: RawKind, tasks: Mapping[str, DenseTask], predictions: Mapping[str, NDArray[Any]]
) -> dict[str, float]:
    """Write one image's predictions.

    PNG files hold whole numbers as the task's ``storage`` says (depth in millimetres, 16 bits; class ids with the
    task's palette). NPZ and EXR files hold the values themselves; in EXR files' stead, class maps are PNG.

    Args:
        folder: of all outputs.
        name: of the image.
        kind: of the files.
        tasks: {name: task}.
        predictions: {task: (H,W) or (H,W,C)}.

    Returns:
        {task: share of values that the file cannot hold and cuts}, where that is not 0.
    """
    if kind == "npz":
        with atomic_write(folder / NPZ / f"{name}.npz", sync=False) as temporary, temporary.open("wb") as file:
            np.savez(file, **predictions)  # type: ignore[arg-type]  # numpy's stub takes its own option's type for all
        return {}
    cut = {}
    for task_name, task in tasks.items():
        prediction = predictions[task_name]
        if kind == "exr" and not task.class_map:
            _write_exr(folder / task_name / f"{name}.exr", prediction)
            continue
        cut[task_name] = _cut(task, prediction)
        _write_png(folder / task_name / f"{name}.png", task, prediction)
    return {task_name: share for task_name, share in cut.items() if share}


def _write_png(path: Path, task: DenseTask, prediction: NDArray[Any]) -> None:
    row = as_row(task, prediction)
    finite = row.isfinite() if row.ndim == 2 else row.isfinite().all(0)
    stored = task.storage.encode(row, finite)
    with atomic_write(path, sync=False) as temporary:
        if task.class_map and stored.dtype == np.uint8:
            picture = Image.fromarray(stored)
            picture.putpalette(_palette(task))
            picture.save(temporary, format="PNG")
        else:
            channels = stored if stored.ndim == 2 else stored[..., ::-1]  # OpenCV writes blue first
            good, data = cv2.imencode(".png", np.ascontiguousarray(channels))
            if not good:
                raise ValueError(f"{path}: OpenCV cannot write {stored.dtype} {stored.shape}; take --raw npz.")
            temporary.write_bytes(data.tobytes())


def _palette(task: DenseTask) -> list[int]:
    """256 colours: the task's, then black."""
    ids = torch.arange(min(task.channels, 256))[None]
    colors = np.zeros((256, 3), np.uint8)
    colors[: ids.shape[1]] = task.colorize_prediction(ids)[0]
    return [int(value) for value in colors.ravel()]


def _write_exr(path: Path, prediction: NDArray[Any]) -> None:
    exr = optional_import("OpenEXR", "--raw exr")
    channels = 1 if prediction.ndim == 2 else prediction.shape[2]
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    values = np.ascontiguousarray(prediction, np.float32)
    with atomic_write(path, sync=False) as temporary:
        exr.File(header, {EXR_NAMES[channels]: values}).write(str(temporary))


def _cut(task: DenseTask, prediction: NDArray[Any]) -> float:
    """Share of finite values that lie outside of what the task's storage can hold."""
    low, high = task.storage.range
    finite = np.isfinite(prediction)
    step = task.storage.scale
    outside = finite & ((prediction < low - step) | (prediction > high + step))
    return float(outside.sum() / max(finite.sum(), 1))


# -- reading them back ------------------------------------------------------------------------------------------------
def target_specs(kind: RawKind, tasks: Mapping[str, DenseTask], within: str = "") -> dict[str, dict[str, Any]]:
    """``targets`` of a FolderDataset that reads the files.

    Args:
        kind: of the files.
        tasks: {name: task}.
        within: the folder of all outputs, as seen from the data set's root.
    """
    specs: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        if kind == "npz":
            specs[name] = {"path": _under(within, NPZ, "npz"), "key": name}
            continue
        suffix = "exr" if kind == "exr" and not task.class_map else "png"
        specs[name] = {"path": _under(within, name, suffix)}
        storage = task.storage
        if suffix == "png" and not task.class_map:
            specs[name] |= {"scale": storage.scale} | ({"offset": storage.offset} if storage.offset else {})
        if suffix == "png" and storage.invalid is not None:
            specs[name]["invalid"] = storage.invalid
    return specs


def _under(within: str, folder: str, suffix: str) -> str:
    return (Path(within) / folder / f"{{}}.{suffix}").as_posix()


def data_set(out: Path, images: Sequence[Source], kind: RawKind, tasks: Mapping[str, DenseTask]) -> dict[str, Any]:
    """Arguments of a FolderDataset over images of one folder and their predictions.

    Args:
        out: folder of all outputs.
        images: those whose predictions are written.
        kind: of the files.
        tasks: {name: task}.

    Returns:
        root, images, targets, and, where the folder holds other images too, split: a list that is written to ``out``.
        Without ``images`` where they lie in several folders, or have other names than their predictions.
    """
    paths = [Path(source.path).resolve() for source in images]
    folders = {path.parent for path in paths}
    if len(folders) != 1 or any(Path(source.path).stem != source.name for source in images):
        return {"root": str(out.resolve()), "targets": target_specs(kind, tasks)}
    folder, suffixes = folders.pop(), {path.suffix for path in paths}
    root = Path(os.path.commonpath([folder, out.resolve()]))
    wildcard = f"*{suffixes.pop()}" if len(suffixes) == 1 else "*"
    within = _within(out.resolve(), root)
    found: dict[str, Any] = {
        "root": str(root),
        "images": _within(folder, root, wildcard),
        "targets": target_specs(kind, tasks, within),
    }
    if {path.name for path in folder.glob(wildcard) if _counts(path)} - {path.name for path in paths}:
        write_text(out / LIST, "".join(f"{path.name}\n" for path in sorted(paths)))
        found["split"] = _within(out.resolve(), root, LIST)
    return found


def _within(path: Path, root: Path, *names: str) -> str:
    relative = path.relative_to(root).joinpath(*names).as_posix()
    return "" if relative == "." else relative


def _counts(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_hidden(path.name)


def reading_line(arguments: Mapping[str, Any]) -> str:
    """What a config or a program says to read the files.

    Args:
        arguments: of FolderDataset, as ``data_set`` gives them.
    """
    targets = ", ".join(
        f"{name}=dict({', '.join(f'{key}={value!r}' for key, value in spec.items())})"
        for name, spec in arguments["targets"].items()
    )
    front = ", ".join(f"{key}={arguments[key]!r}" for key in ("root", "images", "split") if key in arguments)
    return f"FolderDataset({front}, targets=dict({targets}))"


def write_data_set(path: Path, arguments: Mapping[str, Any]) -> None:
    """Write the arguments as JSON.

    Args:
        path: the file.
        arguments: of FolderDataset.
    """
    write_text(path, json.dumps({"type": "FolderDataset", **arguments}, indent=2) + "\n")
