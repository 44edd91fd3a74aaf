"""List the files of a split: which exist, which are missing, and the size of the frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from symerge_dense.datasets.image_files import is_hidden
from symerge_dense.datasets.mtan_layout import LABEL, SCALAR, VECTOR, read_array
from symerge_dense.preparation.check.findings import Findings

Numbers = dict[str, set[int]]
CHANNELS = {"image": VECTOR, "label": LABEL, "depth": SCALAR, "normal": VECTOR}  # ends of shapes (H,W,...)
CHANNEL_LIMIT = 4  # a dimension up to this is taken for channels, a larger one for rows or columns


def list_numbers(split: Path, faults: Findings) -> tuple[Numbers, int]:
    """Numbers of the files in each folder, and how many numbers there should be.

    A split runs from 0 to the highest number that at least half of its folders have. Up to there, every folder must
    have every number; beyond it, none.

    Args:
        split: folder of the split.
        faults: missing folders, missing and extra files and odd names are added here.

    Returns:
        ``{folder: numbers}`` without folders that do not exist, and the number of images.
    """
    if not split.is_dir():
        faults.add(split, "folder missing; a set has train/ and val/")
        return {}, 0
    found = {}
    for folder in CHANNELS:
        if (split / folder).is_dir():
            found[folder] = _numbers(split / folder, faults)
        else:
            faults.add(split / folder, f"folder missing; expected {folder}/0.npy, {folder}/1.npy, ... in it")
    votes = Counter(number for numbers in found.values() for number in numbers)
    count = max((number + 1 for number, folders in votes.items() if 2 * folders >= len(found)), default=0)
    for folder, numbers in found.items():
        _check_numbers(split / folder, numbers, count, faults)
    return {folder: {number for number in numbers if number < count} for folder, numbers in found.items()}, count


def _numbers(folder: Path, faults: Findings) -> set[int]:
    stems = [path.stem for path in sorted(folder.glob("*.npy")) if not is_hidden(path.name)]
    plain = {stem for stem in stems if stem.isascii() and stem.isdecimal() and str(int(stem)) == stem}
    for stem in stems:
        if stem not in plain:
            faults.add(folder / f"{stem}.npy", "not a name of the layout; files are called 0.npy, 1.npy, 2.npy, ...")
    return {int(stem) for stem in plain}


def _check_numbers(folder: Path, numbers: set[int], count: int, faults: Findings) -> None:
    if not numbers:
        faults.add(folder, "holds no numbered .npy file; expected 0.npy, 1.npy, 2.npy, ...")
        return
    for number in sorted(set(range(count)) - numbers):
        faults.add(folder / f"{number}.npy", f"missing; expected 0.npy to {count - 1}.npy")
    for number in sorted(number for number in numbers if number >= count):
        faults.add(folder / f"{number}.npy", f"extra: most folders of {folder.parent.name}/ end at {count - 1}.npy")


def frame_size(split: Path, numbers: Numbers) -> tuple[int, int] | None:
    """Image size (H, W) that most files of a split have, read from their headers.

    Args:
        split: folder of the split.
        numbers: of its files, by folder.

    Returns:
        None if no file is readable.
    """
    votes: Counter[tuple[int, ...]] = Counter()
    for folder, known in numbers.items():
        for number in known:
            try:
                shape = read_array(split / folder / f"{number}.npy").shape
            except ValueError:
                continue  # reading the contents will report it
            votes[tuple(side for side in shape if side > CHANNEL_LIMIT)] += 1
    sizes = [(size[0], size[1]) for size, _ in votes.most_common() if len(size) == 2]
    return sizes[0] if sizes else None


def shape_fault(folder: str, shape: tuple[int, ...], frame: tuple[int, int]) -> str:
    """What is wrong with the shape of a file, or an empty text.

    Args:
        folder: 'image', 'label', 'depth' or 'normal'.
        shape: of the stored array.
        frame: image size (H, W) of the split.
    """
    channels = CHANNELS[folder]
    if shape in [(*frame, *last) for last in channels]:
        return ""
    text = f"shape {shape}, expected {(*frame, *channels[0])}"
    if shape in [(*last, *frame) for last in channels]:
        return f"{text}: channels come last; store np.moveaxis(array, 0, -1)"
    if shape[:2] == frame[::-1]:
        return f"{text}: rows and columns are swapped; store np.swapaxes(array, 0, 1)"
    return text
