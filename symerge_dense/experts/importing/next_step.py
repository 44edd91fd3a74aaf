"""What one would run after an import, as a command to copy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from symerge_dense.models.weight_files import has_record, read_metadata


def next_step(out: Path, base: str | Path | None, digest: str | None) -> str:
    """The command that one would run after an import: a merge, where another expert of the same base stands beside.

    Args:
        out: the imported model file.
        base: the base's file.
        digest: its hash; None where the base is not known.
    """
    found: dict[str, Path] = {}
    plugins: dict[str, None] = {}
    for path in [out, *sorted(out.parent.glob("*.safetensors"))]:
        record = _record(path)
        fits = path == out or (digest is not None and record.get("base_hash") == digest and "origin" in record)
        if fits and not any(task in found for task in record["tasks"]):
            found |= dict.fromkeys(record["tasks"], path)
            plugins |= dict.fromkeys(record.get("plugins", {}).values())
    files = {"-".join(task for task in found if found[task] == path): path for path in found.values()}
    merged = out.parent / "merged.safetensors"
    words = ["symerge", "predict", str(out), "PHOTOS", "--out", "predictions"]
    if len(files) > 1:
        words = ["symerge", "merge", "--method", "ties", "--base", str(base), "--heads", "--out", str(merged)]
        words += ["--experts", *(f"{name}={path}" for name, path in files.items())]
    words += [word for module in plugins for word in ("--import", module)]
    what = "merge the experts into one model" if len(files) > 1 else "look at what it predicts of a folder of photos"
    return f"next, {what}:\n  {shlex.join(words)}"


def _record(path: Path) -> dict[str, Any]:
    """The record of a model file; of another file, a neighbour that is none of our business, an empty one."""
    try:
        return read_metadata(path) if has_record(path) else {}
    except (ValueError, OSError):  # damaged, or of a newer version
        return {}
