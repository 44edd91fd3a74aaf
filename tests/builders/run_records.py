"""Records of runs and comparisons as they lie on disk, with numbers that a reader can check by hand."""

import json

from PIL import Image

from symerge_dense.report.paper_numbers import PUBLISHED
from symerge_dense.report.results import MERGED_ROWS

PAPER = PUBLISHED["nyuv2-symerge"]
CURVES = {"loss_": 1.0, "coefficient_mean_": 0.5}
MINE = {
    "experts": (50.0, 75.0, 0.40, 0.16, 24.0),
    "average": (30.0, 60.0, 0.60, 0.24, 30.0),
    "task_arithmetic": (32.0, 61.0, 0.55, 0.22, 31.0),
    "initial": (31.0, 61.0, 0.56, 0.22, 31.0),
    "merged": (49.0, 74.0, 0.42, 0.17, 25.0),
}


def record(seed=0, shift=0.0, **config):
    """results.json of a run whose merged mIoU is ``shift`` higher."""
    rows = {}
    for row, values in MINE.items():
        tasks = {}
        for column, value in zip(PAPER.columns, values, strict=True):
            entry = {"value": value, "higher_is_better": column.higher_is_better}
            tasks.setdefault(column.task, {})[column.metric] = entry
        tasks["depth"]["rmse"] = {"value": 0.5, "higher_is_better": False}
        rows[row] = {"tasks": tasks}
    rows["merged"]["tasks"]["segmentation"]["mIoU"]["value"] += shift
    facts: dict = dict.fromkeys(("commit", "versions", "device", "timings", "peak_memory_mb"))
    delta = {row: {"mean": -1.0} for row in MERGED_ROWS}
    config = {"name": "nyuv2_symerge", "seed": seed, **config}
    return {**facts, "config": config, "seed": seed, **rows, "delta_m": delta}


def cells(markdown):
    """{row: {heading: cell}} of the one table in a text."""
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in markdown.splitlines() if "|" in line]
    heading = lines[0] if lines[0][0] == "" else ["", *lines[0]]
    return {line[0]: dict(zip(heading[1:], line[1:], strict=True)) for line in lines[2:]}


def comparison(**config):
    """compare.json of the experts, SyMerge over two seeds, TIES, and a method that failed."""
    run = record(**config)
    ties = {"segmentation": (30.0, 60.0), "depth": (0.60, 0.24, 0.5), "normals": (30.0,)}
    rows = [
        {"method": "experts", "block": "reference", "data": "none", "runs": 1, "tasks": run["experts"]["tasks"]},
        {"method": "symerge", "block": "adaptive", "data": "unlabelled", "runs": 2, "tasks": run["merged"]["tasks"]},
        {"method": "ties", "block": "static", "data": "none", "runs": 1, "tasks": _filled(run, ties)},
        {"method": "emr", "block": "static", "data": "none", "runs": 0, "error": "RuntimeError: no"},
    ]
    rows[1]["tasks"]["segmentation"]["mIoU"]["std"] = 0.5
    for row, mean in zip(rows, (None, -4.0, -28.0), strict=False):
        row["delta_m"] = {} if mean is None else {"mean": {"value": mean}}
        row |= {"extra_parameters": 0, "encoder_passes": 1, "seconds": 2.5, "peak_memory_mb": 100.0}
    return {
        **{key: run[key] for key in ("commit", "versions", "device", "config")},
        "tuning": "agreement with the experts",
        "seeds": 2,
        "blocks": {"reference": "references", "adaptive": "on unlabelled images", "static": "without data"},
        "adapted_from": "symerge",
        "delta_m_metrics": {"segmentation": "mIoU", "depth": "abs", "normals": "mean"},
        "rows": rows,
    }


def _filled(run, values):
    return {
        task: {
            metric: {"value": value, "higher_is_better": entry["higher_is_better"]}
            for (metric, entry), value in zip(run["experts"]["tasks"][task].items(), numbers, strict=True)
        }
        for task, numbers in values.items()
    }


def with_extras(run, tasks=("segmentation", "depth", "normals"), layers=6):
    """What runs record beside their numbers; Delta_m of every task, coefficients of some layers."""
    run["config"] |= {"tasks": {task: {"type": task} for task in tasks}}
    for row in MERGED_ROWS:
        run["delta_m"][row] |= dict.fromkeys(tasks, run["delta_m"][row]["mean"])
    for row in ("experts", *MERGED_ROWS):
        miou = run[row]["tasks"][tasks[0]]["mIoU"]
        miou["parts"] = {"wall": miou["value"] + 10, "floor": miou["value"] - 10, "absent": None}
    groups = [f"body.layer{index // 2}.{index % 2}.weight" for index in range(layers)]
    run["coefficients"] = {name: [0.1 * place, 0.5, 1.0] for place, name in enumerate(groups)}
    run |= {"timings": {"data": 1.0, "adaptation": 9.0}, "peak_memory_mb": 100.0, "device": "cpu", "commit": "0" * 40}
    run |= {"parameters": {"backbone": 4_000_000, "heads": dict.fromkeys(tasks, 1_000_000)}, "versions": {"torch": "2"}}
    run["units"] = {"segmentation": {"mIoU": "%"}, "depth": {"abs": "m"}}
    return run


def unlabelled(seed=0, **config):
    """results.json of a run without labels."""
    run = with_extras(record(seed, **config))
    rows = {row: run.pop(row) for row in ("experts", *MERGED_ROWS)}
    del run["delta_m"]
    kept = {row: rows[row] for row in ("average", "initial", "merged")}
    return {**run, "agreement": {"held_out_images": 7, "adapted_images": 30, "rows": kept}}


def run_folder(folder, run, size=(24, 32)):
    """A finished run on disk, with its curve and one picture per model: of one grey level each, the merged lightest."""
    levels = {"truth": 40, "expert": 90, "task arithmetic": 140, "merged": 220}
    tasks = list(run["config"]["tasks"])
    pictures = {task: {column: f"panels/{column}.png" for column in levels} for task in tasks}
    scale = {"names": [], "colors": [[0, 0, 0], [255, 255, 255]], "low": 0.5, "high": 4.25, "unit": "m"}
    named = {**scale, "names": ["wall", "floor"], "low": None, "high": None, "unit": ""}
    legends = {task: scale if task == "depth" else named for task in tasks}
    run["panels"] = [{"image": "panels/image.png", "tasks": pictures, "legends": legends}]
    (folder / "panels").mkdir(parents=True)
    for name, level in {**levels, "image": 10}.items():
        Image.new("RGB", (size[1], size[0]), (level,) * 3).save(folder / "panels" / f"{name}.png")
    rows = [
        {"iteration": step, **{f"{key}{task}": value / (step + 1) for task in tasks for key, value in CURVES.items()}}
        for step in range(20)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write(folder, "results.json", run)


def write(folder, name, content):
    """Write a record into a folder of its own; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder
