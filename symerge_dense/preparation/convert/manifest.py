"""manifest.json of a prepared folder: the source files and settings of its arrays, and which splits are complete.

    {"format": 1, "data_set": "nyuv2", "packaging": "mat", "source": "/data/nyu_official",
     "settings": {"classes": 13, "size": [288, 384], "crop": "none", "normals": "stored"},
     "splits": {"train": {"count": 795, "frame": [288, 384], "complete": true, "versions": {"numpy": "2.4.6", ...},
                          "sources": {"splits.mat": {"size": 2626, "mtime_ns": ..., "sha256": ...}, ...}}, ...}}

A later run goes on with the folder if ``settings``, ``packaging`` and the contents of the sources agree; otherwise the
folder is refused. ``source``, ``versions`` and times are for people to read. A size of null means: as stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symerge_dense.datasets.image_files import is_hidden
from symerge_dense.fileio import parsed_json, write_text
from symerge_dense.preparation.convert.fingerprints import Entry, same

MANIFEST_FORMAT = 1
NAME = "manifest.json"
PACKAGES = ("numpy", "h5py", "scipy", "pyarrow")
Manifest = dict[str, Any]
Sources = dict[str, dict[str, Entry]]  # split -> name -> entry


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest of a folder.

    Args:
        root: the folder.

    Returns:
        None if it has no manifest.

    Raises:
        ValueError: its ``manifest.json`` was not written by a conversion.
    """
    path = root / NAME
    try:
        found = parsed_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: not a manifest ({error}); {_remedy(root)}") from error
    splits = found.get("splits") if isinstance(found, dict) else None
    entries = list(splits.values()) if isinstance(splits, dict) else [None]
    if not all(isinstance(entry, dict) and _are_sources(entry.get("sources")) for entry in entries):
        raise ValueError(f"{path}: not a manifest of prepared data; {_remedy(root)}")
    return dict(found)


def _are_sources(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in found.values()
    )


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write a manifest, whole or not at all.

    Args:
        root: folder that it is written to.
        manifest: its contents.
    """
    write_text(root / NAME, json.dumps(manifest, indent=1) + "\n")


def recorded_sources(manifest: Manifest | None) -> Sources:
    """Source files of every split in a manifest.

    Args:
        manifest: None stands for an empty one.
    """
    return {} if manifest is None else {split: entry["sources"] for split, entry in manifest["splits"].items()}


def admit(root: Path, found: Manifest | None, wanted: Manifest, sources: Sources) -> Manifest:
    """Decide whether a conversion may write to a folder.

    Args:
        root: the folder.
        found: its manifest; None: it has none.
        wanted: manifest of the conversion, without splits.
        sources: fingerprints of the splits to write, as far as they are known.

    Returns:
        The manifest to go on with: ``wanted`` with the splits of ``found``.

    Raises:
        ValueError: ``found`` has another packaging, other settings or other sources (the text says which), or ``root``
            holds arrays but no manifest.
    """
    if found is None:
        stray = next((path for path in root.glob("*/*/*.npy") if not is_hidden(path.name)), None)
        if stray is not None:
            raise ValueError(f"{stray}: arrays of unknown origin, there is no {root / NAME}; {_remedy(root)}")
        return {**wanted, "splits": {}}
    differing = [*_other_settings(found, wanted), *_other_sources(recorded_sources(found), sources)]
    if differing:
        raise ValueError(f"{root} was made otherwise: {', '.join(differing)}; {_remedy(root)}")
    return {**wanted, "splits": dict(found["splits"])}


def _other_settings(found: Manifest, wanted: Manifest) -> list[str]:
    pairs = [(key, found.get(key), wanted[key]) for key in ("format", "data_set", "packaging")]
    before = found.get("settings")
    before = before if isinstance(before, dict) else {}
    names = sorted({*before, *wanted["settings"]}) if found.get("packaging") == wanted["packaging"] else []
    pairs += [(name, before.get(name), wanted["settings"].get(name)) for name in names]
    return [f"{name} was {json.dumps(old)} and is {json.dumps(new)} now" for name, old, new in pairs if old != new]


def _other_sources(found: Sources, wanted: Sources) -> list[str]:
    """Differences within each split, and of single files that different splits share."""
    differing: set[str] = set()
    for split, entries in wanted.items():
        for earlier, before in found.items():
            own = earlier == split
            shared = {name for name in before if name in entries and (own or "files" not in entries[name])}
            differing |= {f"{name} has other contents" for name in shared if not same(before[name], entries[name])}
            differing |= {f"{name} was not a source of {split}" for name in entries if own and name not in before}
            differing |= {f"{name} was a source of {split}" for name in before if own and name not in entries}
    return sorted(differing)


def _remedy(root: Path) -> str:
    return f"choose another --out, or remove {root} and run again."
