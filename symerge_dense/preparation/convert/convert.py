"""Convert a packaging of NYUv2 to one folder, with a manifest that is kept up to date while files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2

from symerge_dense.datasets.mtan_layout import SPLITS
from symerge_dense.engine.fan_out import check_place
from symerge_dense.preparation.convert.export import check_space, export, frame_of, missing_bytes
from symerge_dense.preparation.convert.fingerprints import Entry, fingerprints
from symerge_dense.preparation.convert.manifest import (
    MANIFEST_FORMAT,
    PACKAGES,
    Manifest,
    Sources,
    admit,
    read_manifest,
    recorded_sources,
    write_manifest,
)
from symerge_dense.preparation.convert.packagings import Split, open_split, settings_of
from symerge_dense.progress import say
from symerge_dense.report.results import versions

OUT = "data/nyuv2"


def convert(
    packaging: str,
    source: str | Path,
    out: str | Path,
    settings: Mapping[str, Any],
    splits: Sequence[str] = SPLITS,
    jobs: int = 1,
    on: str | None = None,
) -> int:
    """Write a packaging to a folder in the layout of ``export``, with a manifest.

    After an interruption, call it again: it goes on where it stopped, and writes nothing if everything is there.

    Args:
        packaging: name of the packaging, for example 'mat'.
        source: file or folder of the packaging.
        out: folder to write to.
        settings: as ``settings_of`` returns them.
        splits: which splits to write.
        jobs: processes that write; the files do not depend on their number.
        on: 'ray' or 'ray:ADDRESS' for the machines of a cluster, which share the folders; None for this one alone.

    Returns:
        Number of files written.

    Raises:
        ValueError: ``out`` holds files that were made with other settings or from other sources, the disk is too
            small, or something is wrong with the source.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: give at least 1.")
    if on is not None:
        check_place(on)
    root, origin = Path(out), Path(source)
    found = read_manifest(root)
    opened = {split: open_split(packaging, origin, split, settings) for split in dict.fromkeys(splits)}
    wanted = {
        "format": MANIFEST_FORMAT,
        "data_set": "nyuv2",
        "packaging": packaging,
        "source": str(origin.absolute()),
        "settings": dict(settings),
    }
    admit(root, found, wanted, {})  # first the checks that need not read gigabytes
    check_space(root, sum(missing_bytes(data, root / split) for split, data in opened.items()))
    sources = _sources(opened, origin if origin.is_dir() else origin.parent, found)
    manifest = admit(root, found, wanted, sources)
    written = sum(_write_split(root, manifest, split, data, sources[split], jobs, on) for split, data in opened.items())
    counts = ", ".join(f"{split} {len(data)}" for split, data in opened.items())
    say(f"{root}: {f'{written} files written' if written else 'already complete'} (images: {counts})")
    return written


def _sources(opened: Mapping[str, Split], root: Path, found: Manifest | None) -> Sources:
    """Fingerprints of each split's files. Files that the manifest or an earlier split has are not read again."""
    sources: Sources = {}
    for split, data in opened.items():
        known = [*recorded_sources(found).values(), *sources.values()]
        sources[split] = fingerprints(data.source_files, root, known)
    return sources


def _write_split(
    root: Path, manifest: Manifest, split: str, data: Split, sources: dict[str, Entry], jobs: int, on: str | None
) -> int:
    before = manifest["splits"].get(split, {})
    if before.get("complete") is True and missing_bytes(data, root / split) == 0:
        _record(root, manifest, split, {**before, "sources": sources})  # equal files may have new times
        return 0
    entry = {
        "count": len(data),
        "frame": list(frame_of(data)),
        "complete": False,
        "versions": {**versions(PACKAGES), "opencv": cv2.__version__},
        "sources": sources,
    }
    _record(root, manifest, split, entry)
    written = export(data, root / split, jobs, on)
    _record(root, manifest, split, {**entry, "complete": True})
    return written


def _record(root: Path, manifest: Manifest, split: str, entry: dict[str, Any]) -> None:
    if manifest["splits"].get(split) != entry:
        manifest["splits"][split] = entry
        write_manifest(root, manifest)


def convert_tool(
    source: str,
    packaging: str,
    out: str | None = None,
    classes: int = 13,
    size: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    jobs: int = 1,
    on: str | None = None,
    **options: str | None,
) -> int:
    """Convert as a command. ``packaging='npy'`` is the layout itself, which is only checked.

    Args:
        source: file or folder of the packaging.
        packaging: its name.
        out: folder to write to; None: ``data/nyuv2``.
        classes: number of classes of the labels, 13 or 40.
        size: ['288', '384'] or ['native']; None: the packaging's default.
        splits: which splits to write; None: train and val.
        jobs: as in ``convert``.
        on: as in ``convert``.
        **options: options of the packaging, see ``settings_of``; None: its default.

    Returns:
        Exit code: 1 if a check found faults, else 0.

    Raises:
        ValueError: the packaging does not have an option, or as ``convert``.
    """
    if packaging != "npy":
        settings = settings_of(packaging, classes, _size_of(size), **options)
        convert(packaging, source, OUT if out is None else out, settings, splits or SPLITS, jobs, on)
        return 0
    settable = {"jobs": jobs if jobs != 1 else None, "on": on, "out": out, "size": size, "splits": splits, **options}
    given = [repr(name) for name, value in settable.items() if value is not None]
    if given:
        raise ValueError(
            f"packaging 'npy' has no option {', '.join(given)}: nothing is converted, the folder is "
            "checked as it is; leave it out."
        )
    from symerge_dense.preparation.check.check import check_tool

    code = check_tool(source, classes, None)
    if code == 0:
        say(f"{source} needs no conversion: use it in place, root={source!r}")
    return code


def _size_of(words: Sequence[str] | None) -> tuple[int, int] | Literal["native"] | None:
    if words is None:
        return None
    if list(words) == ["native"]:
        return "native"
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise ValueError(f"--size {' '.join(words)}: give height and width in pixels, as in --size 288 384, or native.")
    return int(words[0]), int(words[1])
