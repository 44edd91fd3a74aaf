"""The model card (README.md of a Hub folder), written from a model's record and the record of its run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

import symerge_dense
from symerge_dense.fileio import parsed_json
from symerge_dense.models.plugins import plugins_of
from symerge_dense.models.weight_files import has_record, read_metadata, state_hash

if TYPE_CHECKING:
    from symerge_dense.models.multi_task import MultiTaskModel

PICTURE = "panels.png"
RESULTS = "results.json"
PIPELINES = {"segmentation": "image-segmentation", "depth": "depth-estimation"}  # the Hub's names; else image-to-image
TITLES = {"merged": "SyMerge", "initial": "initial merge", "task_arithmetic": "task arithmetic"}
FALLBACK_SIZE = (256, 320)  # of the example's images, for a network that takes any


def card(model: MultiTaskModel, name: str, run: str | Path | None = None, license: str | None = None) -> ModelCard:
    """A model card.

    Args:
        model: what the card is about; its ``record`` says how it was made.
        name: of the repository or folder.
        run: folder of the run that made it, with results.json and perhaps panels.png.
        license: of the weights, as the Hub abbreviates it.

    Raises:
        ValueError: the run's results cannot be read.
    """
    results = _results(run)
    experts = list(_experts(results))
    stated = {about["license"] for about in experts}
    own = license or _text(model.record.get("license")) or (stated.pop() if len(stated) == 1 else "")
    header = ModelCardData(
        library_name="symerge_dense",
        license=own or "other",
        license_name=None if own else "unknown",
        pipeline_tag=next((tag for task, tag in PIPELINES.items() if task in model.tasks), "image-to-image"),
        tags=["symerge", "model-merging", "multi-task", "dense-prediction", model.backbone.name, *model.tasks],
    )
    picture = run is not None and (Path(run) / PICTURE).is_file()
    shown = f"![image, truth, experts and merged model on the test split]({PICTURE})" if picture else ""
    parts = [
        f"---\n{header}\n---",
        f"# {name}",
        f"One `{model.backbone.name}` with {len(model.tasks)} head{'s' if len(model.tasks) > 1 else ''}: "
        f"{', '.join(model.tasks)}. It takes an RGB image and makes all predictions in one pass. Made by "
        f"`symerge_dense`"
        + (": the experts were merged by [SyMerge](https://arxiv.org/abs/2412.19098)." if results else "."),
        shown,
        _usage(model, name),
        _tasks(model),
        _metrics(model, results),
        _making(model, results, experts, own),
    ]
    return ModelCard("\n\n".join(part for part in parts if part) + "\n")


def _results(run: str | Path | None) -> dict[str, Any]:
    if run is None:
        return {}
    path = Path(run) / RESULTS
    try:
        results = parsed_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"run {run}: {RESULTS} cannot be read ({error}); give the folder of a finished run.") from None
    if not isinstance(results, dict) or not isinstance(results.get("config"), dict):
        raise ValueError(f"run {run}: {RESULTS} is no record of a run; give the folder of a finished run.")
    return results


def _usage(model: MultiTaskModel, name: str) -> str:
    height, width = model.image_size or FALLBACK_SIZE
    modules = sorted(set(plugins_of(model.spec).values()))
    registers = "".join(f"import {module}  # registers what the file names\n" for module in modules)
    return (
        "## Use it\n\n```sh\npip install symerge-dense\n```\n\n```python\nimport torch\n"
        f"{registers}from symerge_dense import MultiTaskModel\n\n"
        f"model = MultiTaskModel.from_pretrained({json.dumps(name)})  # of the Hub, or a folder\n"
        f"images = torch.rand(1, 3, {height}, {width}) * 255  # RGB in 0..255; they are normalised inside\n"
        'with torch.no_grad():\n    (outputs,) = model(images, mode="predict")\n'
        "for task, output in outputs.items():\n"
        "    print(task, tuple(model.tasks[task].decide(output[None])[0].shape))\n```\n\n"
        "`symerge predict FOLDER PHOTOS --out DIR` runs it on photos and videos, `symerge export FOLDER` writes ONNX."
    )


def _tasks(model: MultiTaskModel) -> str:
    rows = []
    for name, task in model.tasks.items():
        classes = [str(entry) for entry in getattr(task, "class_names", ())]
        what = f"{len(classes)} classes: {', '.join(classes)}" if classes else task.unit or "–"
        rows.append([name, str(task.channels), what, _head(model, name)])
    return "## Tasks\n\n" + _table(["task", "channels", "classes or unit", "head"], rows)


def _head(model: MultiTaskModel, task: str) -> str:
    spec = dict(model.spec["heads"][task])
    return f"{spec.pop('type')} {', '.join(f'{key}={value}' for key, value in spec.items())}".strip()


def _metrics(model: MultiTaskModel, results: Mapping[str, Any]) -> str:
    """The rows of the run; without labels, how far they agree with the experts; without a run, what the file says."""
    agreement = results.get("agreement") or model.record.get("agreement") or {}
    kept = {"merged": model.record.get("results")}
    sources = (results, agreement.get("rows", {}) if isinstance(agreement, Mapping) else {}, kept)
    rows = next(
        filter(None, ({key: s for key, row in source.items() if (s := _scores(row))} for source in sources)), {}
    )
    if not rows:
        return ""
    columns = list(next(iter(rows.values())))
    deltas = results.get("delta_m", {})
    body = []
    for key, found in rows.items():
        title = TITLES.get(key, key)
        values = [*(found.get(column) for column in columns), *([deltas.get(key, {}).get("mean")] if deltas else [])]
        body.append([f"**{title}**" if key == "merged" else title, *map(_number, values)])
    heads = ["", *(f"{task} {metric}" for task, metric in columns), *(["Δm %"] if deltas else [])]
    return f"## Metrics\n\n{_meaning(results, agreement, bool(deltas))}\n\n{_table(heads, body)}"


def _meaning(results: Mapping[str, Any], agreement: Mapping[str, Any], compared: bool) -> str:
    if not compared:
        images = f" {agreement['held_out_images']} held-out" if "held_out_images" in agreement else ""
        return (
            f"Measured without labels, on{images} images: each task's expert is the truth, so this is agreement with "
            "it."
            if agreement
            else "As the model's file says."
        )
    test = json.dumps(_public(results["config"].get("data", {}).get("test", {})))
    headlines = ", ".join(f"{metric} ({task})" for task, metric in results.get("delta_m_metrics", {}).items())
    return (
        f"Measured on `{test}`. The row of the experts is one network a task; every other row is one backbone with all "
        f"heads. Δm is the mean over tasks of the relative change of {headlines or 'one metric each'} against the "
        "experts, in percent, positive where the model is better."
    )


def _scores(row: Any) -> dict[tuple[str, str], Any]:
    """{(task, metric): value} of a row of results.json; empty for what is no row."""
    tasks = row.get("tasks") if isinstance(row, Mapping) else None
    return {
        (task, metric): entry["value"]
        for task, metrics in (tasks.items() if isinstance(tasks, Mapping) else ())
        for metric, entry in (metrics.items() if isinstance(metrics, Mapping) else ())
        if isinstance(entry, Mapping) and "value" in entry
    }


def _making(
    model: MultiTaskModel, results: Mapping[str, Any], experts: Sequence[Mapping[str, str]], license: str
) -> str:
    config = results.get("config", {})
    facts: dict[str, Any] = {
        "backbone": model.backbone.spec,
        "preprocessing": model.spec["preprocessing"],
        "base": config.get("base"),
        "base sha256": model.record.get("base_hash"),
        "adaptation": model.record.get("training") or config.get("adaptation"),
        "data": {key: value for key, value in config.get("data", {}).items() if key != "train"} or None,
        "seed": results.get("seed"),
        "imported from": model.record.get("origin"),
        "versions": results.get("versions") or {"symerge_dense": symerge_dense.__version__},
        "commit": results.get("commit"),
        "sha256 of the weights": state_hash(model.state_dict()),
    }
    told = [
        f"- {key}: `{_public(value) if isinstance(value, str) else json.dumps(_public(value))}`"
        for key, value in facts.items()
        if value is not None
    ]
    described = [
        f"- expert {about['task']}: {about['source']}, licence {about['license'] or 'not stated'}" for about in experts
    ]
    terms = (
        f"These weights are given under `{license}`."
        if license
        else "No licence of these weights is stated. They derive from the base, the experts and the data named above: "
        "ask whoever gave them."
    )
    return "\n".join(["## How it was made\n", *told, *described, f"\n## Licence\n\n{terms}"])


def _experts(results: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Of every expert of a run: task, source and licence, as far as its file is at hand and says so."""
    config = results.get("config", {})
    given = config.get("experts", {}).get("checkpoints") or {}
    for task in config.get("tasks", {}):
        if task not in given:
            yield {"task": task, "source": "trained by the run", "license": ""}
            continue
        path = Path(str(given[task]))
        record = read_metadata(path) if path.is_file() and has_record(path) else {}
        digest = f", sha256 `{record['hash']}`" if "hash" in record else ""
        yield {"task": task, "source": f"`{path.name}`{digest}", "license": _text(record.get("license"))}


def _public(value: Any) -> Any:
    """A recorded value without the folders of the machine that made it."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
