"""Readers of records: what runs, comparisons, studies and conversions leave, and lists of names."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.nyu_other_files import write_nyudv2
from builders.run_records import comparison, record, run_folder, unlabelled, with_extras, write
from PIL import Image

from fuzz.reader import Reader
from symerge_dense.adaptation.history import read_history
from symerge_dense.commands import report
from symerge_dense.datasets.folder_files import find, names_of_split
from symerge_dense.datasets.nyuv2.listed import NYUDv2
from symerge_dense.models.model_card import _results
from symerge_dense.pipeline.comparison.rows import RowStore
from symerge_dense.pipeline.comparison.seed_results import MadeWith, SeedResult, SeedStore
from symerge_dense.pipeline.run_dir import open_run
from symerge_dense.pipeline.run_lock import _owner
from symerge_dense.preparation.convert.manifest import admit, read_manifest, recorded_sources, write_manifest
from symerge_dense.report.page.document import page
from symerge_dense.report.records import read_records
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.tasks.metric import Metric

SETTINGS = {"scale": 0.3, "share": {"a": 0.2}}
MADE = MadeWith("asked", SETTINGS)
SCORES = {"depth": {"abs": Metric(0.5, False)}, "segmentation": {"mIoU": Metric(40.0, True)}}
ALSO = {"tasks": record()["experts"]["tasks"], "delta_m": {"mean": -1.0}}
DELTAS = {"segmentation": -2.0, "depth": 1.0, "normals": -2.0}


def written(folder: Path, name: str, *contents: Any) -> Sequence[Path]:
    """Files of JSON, the first of them of this name."""
    paths = [folder / name, *(folder / f"{number}-{name}" for number in range(1, len(contents)))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content, indent=2))
    return paths


def results(folder: Path) -> Sequence[Path]:
    further = {**record(), "also": {"other": {key: value for key, value in record().items() if key in ROWS}}}
    return written(folder, "results.json", with_extras(record()), further, unlabelled())


ROWS = ("experts", "average", "task_arithmetic", "initial", "merged", "delta_m")


def compared(folder: Path) -> Sequence[Path]:
    one, two = comparison(), comparison(adaptation={"batchnorm": "moments"})
    for row in two["rows"][:3]:
        row["also"] = {"other": {"tasks": row["tasks"], "delta_m": row["delta_m"]}}
        row["transferred"] = {"mean": {"value": -3.0}}
    return written(folder, "compare.json", one, two)


def tables(path: Path) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        report.run(Namespace(make=report._table, results=[str(path)], paper=None, out=None))
    return out.getvalue()


def whole_page(path: Path) -> str:
    return page(read_records([path]))


def finished_run(folder: Path) -> Sequence[Path]:
    """results.json of a run with pictures and a curve, which lie beside the damaged one."""
    run_folder(folder / "damaged", run := with_extras(record(), layers=2), size=(6, 8))
    return written(folder, "results.json", run)


def curve(folder: Path) -> Sequence[Path]:
    run_folder(folder / "damaged", with_extras(record(), layers=2), size=(6, 8))
    lines = (folder / "damaged" / "history.jsonl").read_text().splitlines()[:6]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    return [folder / "history.jsonl"]


def run_picture(folder: Path) -> Sequence[Path]:
    """A picture of a run, whose record lies where the damaged one will."""
    pictures = [folder / "merged.png", folder / "palette.png"]
    photo = Image.effect_noise((8, 6), 50)
    photo.convert("RGB").save(pictures[0])
    photo.convert("P").save(pictures[1])
    run = with_extras(record(), layers=2)
    run["panels"] = [{"image": "merged.png", "tasks": {"depth": dict.fromkeys(("expert", "merged"), "merged.png")}}]
    write(folder / "damaged", "results.json", run)
    return pictures


def row(folder: Path) -> Sequence[Path]:
    found = comparison()["rows"][1]
    RowStore(folder).write("ties", "asked", SETTINGS, found)
    return [folder / "ties.json"]


def seed(folder: Path) -> Sequence[Path]:
    cost = {"seconds": 1.0, "peak_memory_mb": None}
    result = SeedResult(SCORES, {"other": SCORES}, cost, {"mean": -1.0}, None, None, "static", "none", 1, {"note": "x"})
    SeedStore(folder).write("ties", 0, MADE, result)
    return [folder / "ties" / "0.json"]


def read_seed(path: Path) -> Any:
    place = path.parent / "ties"
    place.mkdir(exist_ok=True)
    shutil.copy(path, place / "0.json")
    return SeedStore(path.parent).read("ties", 0, MADE)


def study(folder: Path) -> Sequence[Path]:
    cache = RunCache(folder)
    cache.write("image", {"a": 1}, {"delta": -1.5, "mean": 2.0}, {"seconds": 1.0})
    return [cache.file("image", {"a": 1})]


def read_study(path: Path) -> Any:
    cache = RunCache(path.parent)
    place = cache.file("image", {"a": 1})
    place.parent.mkdir(exist_ok=True)
    shutil.copy(path, place)
    return cache.read("image", {"a": 1})


@dataclass
class Asked:
    """A config, as plain values."""

    record: dict[str, Any]


CONFIG = {
    "name": "tiny",
    "tasks": {"depth": {"type": "depth"}},
    "adaptation": {"rounds": 3, "num_workers": 0},
    "seed": 0,
}


def run_record(folder: Path) -> Sequence[Path]:
    return written(folder, "run.json", CONFIG)


MANIFEST = {"format": 1, "data_set": "nyuv2", "packaging": "mat", "settings": {"classes": 13, "size": [288, 384]}}

SOURCES = {"splits.mat": {"size": 2626, "mtime_ns": 5, "sha256": "0" * 64}}


def manifest(folder: Path) -> Sequence[Path]:
    splits = {"train": {"count": 2, "frame": [6, 8], "complete": True, "versions": {}, "sources": SOURCES}}
    write_manifest(folder, {**MANIFEST, "source": "/data", "splits": splits})
    return [folder / "manifest.json"]


def read_conversion(path: Path) -> Any:
    found = read_manifest(path.parent)
    admit(path.parent, found, MANIFEST, {"train": SOURCES})
    return recorded_sources(found)


def lock(folder: Path) -> Sequence[Path]:
    about = {"host": "here", "pid": 4321, "started": "2026-01-31 12:00:00"}
    return written(folder, "run.lock", about)


def listed(folder: Path) -> Sequence[Path]:
    """The list of a downloaded set of data, which lies where the damaged one will."""
    write_nyudv2(folder / "nyudv2", train=(1, 0), val=(2,))
    (folder / "nyudv2" / "gt_sets").rename(folder / "damaged")
    (folder / "nyudv2" / "gt_sets").symlink_to(folder / "damaged")
    text = (folder / "damaged" / "train.txt").read_text()
    paths = [folder / "train.txt", folder / "windows.txt"]
    for path, content in zip(paths, (text, text.replace("\n", "\r\n")), strict=True):
        path.write_text(content)
    return paths


def read_listed(path: Path) -> Any:
    return NYUDv2(path.parent.parent / "nyudv2", "train", {"depth": {}}).names


def names(folder: Path) -> Sequence[Path]:
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    for name, text in (("train.txt", "a\n# x\nb.png\n"), ("other.txt", "c.png\n")):
        (folder / name).write_text(text)
    return [folder / "train.txt", folder / "other.txt"]


def read_names(path: Path) -> Any:
    found = find(path.parent.parent, "*.png")
    return names_of_split(path.parent.parent, found, f"damaged/{path.name}")


READERS = [
    Reader("results.json, tables", "json", results, tables),
    Reader("results.json, page", "json", finished_run, whole_page, share=0.3),
    Reader("results.json, model card", "json", results, lambda path: _results(path.parent), share=0.3),
    Reader("compare.json, tables", "json", compared, tables),
    Reader("compare.json, page", "json", compared, whole_page, share=0.3),
    Reader("history.jsonl", "lines", curve, read_history),
    Reader(
        "history.jsonl, page",
        "lines",
        curve,
        lambda path: page(read_records([path.parent / "results.json"])),
        share=0.3,
    ),
    Reader(
        "picture of a run, page",
        "png",
        run_picture,
        lambda path: whole_page(path.parent / "results.json"),
        share=0.3,
    ),
    Reader("row of a comparison", "json", row, lambda path: RowStore(path.parent).read("ties", "asked", SETTINGS)),
    Reader("result of a seed", "json", seed, read_seed),
    Reader("result of a study", "json", study, read_study),
    Reader("lock of a run", "json", lock, _owner, share=0.5),
    Reader("run.json", "json", run_record, lambda path: open_run(path.parent, Asked(CONFIG), resume=True)),
    Reader("manifest.json", "json", manifest, read_conversion),
    Reader("list of names", "bytes", names, read_names),
    Reader("list of a downloaded set", "bytes", listed, read_listed, share=0.5),
]
