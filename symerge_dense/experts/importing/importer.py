"""Experts that other programs trained, as model files of this package."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from symerge_dense.command_line import pair
from symerge_dense.experts.importing.formats import Format, Parts, State, format_of
from symerge_dense.experts.importing.next_step import next_step
from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.experts.importing.timm_network import TimmNetwork, renamed
from symerge_dense.models.backbone import TimmBackbone, load_base, load_weights
from symerge_dense.models.checkpoint import match_report, save_model
from symerge_dense.models.foreign_files import Foreign, read_foreign
from symerge_dense.models.mapped_files import checkpoint_files
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.network_entries import OWNERS, common_prefix
from symerge_dense.models.resnet_names import resnet_spec
from symerge_dense.progress import say
from symerge_dense.registry import TASKS, did_you_mean

TASK_NAMES = {"normal": "normals"}  # other programs' names of our tasks
NO_BASE = (
    "base unknown (no --base): merging this expert needs experts.other_base=True in the config. Give --base the "
    "weights that it was fine-tuned from, such as resnet50-19c8e357.pth."
)

PLAIN_ONLY = (
    "--backbone, a head's type in --head, and --adapt-layer describe a plain state dict of a timm network; --format "
    "{} takes the network from the file: give --format timm with --backbone, or leave them out (--head KEY=VALUE "
    "changes options of the format's own head)."
)


def import_expert(
    checkpoint: str | Path,
    out: str | Path,
    *,
    tasks: Sequence[str] = (),
    kind: str = "auto",
    base: str | Path | None = None,
    options: NetworkOptions | None = None,
    overwrite: bool = False,
    key: str | None = None,
    ema: bool = False,
    backbone: str | Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] = MappingProxyType({}),
    drop: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the network of another program's checkpoint as a model file, and print what matched.

    Args:
        checkpoint: the file to import, or a folder of its shards.
        out: the model file to write (``.safetensors``).
        tasks: the wanted ones of several; all by default. 'THEIRS=OURS' renames a task. With 'timm': the one task.
        kind: a name of FORMATS, 'timm' for a timm backbone with any head, or 'auto'.
        base: the weights that it was fine-tuned from; by their hash, merging checks that experts share them.
        options: of the network; they override those of the format and the file.
        overwrite: replace ``out`` where it exists.
        key: of the network, in a checkpoint of several.
        ema: take the checkpoint's averaged (EMA) weights.
        backbone: with 'timm': name of the timm network, or arguments of ``TimmBackbone``.
        head: with 'timm': spec of the head, {'type': registered name, **arguments}.
        rename: {start of names in the file: what it becomes}.
        drop: patterns of names that are left out, such as 'aux.*'.

    Returns:
        The record that is written into the file.

    Raises:
        ValueError: a file cannot be read safely, a format or task is unknown, or network and tensors do not match
            completely; nothing is written then.
    """
    plain = _is_plain(kind, backbone, head)
    out, source = _free(Path(out), Path(checkpoint), overwrite), str(checkpoint)
    foreign = _read(checkpoint, key, ema)
    state, left_out = renamed(foreign.state, rename, drop, source)
    foreign = dataclasses.replace(foreign, state=state)
    given = options or NetworkOptions()
    if plain:
        network = _timm_network(backbone, head, tasks)
        model, dropped = network.model(state, given, source)
        name, chosen = "timm", {network.task: network.task}
    else:
        form = format_of(foreign, kind)
        say(f"{source}: format {form}")
        parts = form.parts(state)
        chosen = choose_tasks(list(parts.heads), tasks, form.task_names)
        model = build(parts, form, chosen, form.options(foreign.meta, source).updated(given), source)
        name, dropped = form.name, load(model, parts, form, chosen, source)
    record = {"format": name, "tasks": chosen, "dropped": [*left_out, *dropped], "key": foreign.key, "ema": ema}
    return _save(out, model, Path(checkpoint), base, record)


def _is_plain(kind: str, backbone: str | Mapping[str, Any] | None, head: Mapping[str, Any] | None) -> bool:
    """Whether the file is a plain state dict, whose network is described; a format of its own heeds no description."""
    plain = kind == "timm" or (kind == "auto" and backbone is not None)
    if not plain and (backbone is not None or head):
        raise ValueError(PLAIN_ONLY.format(kind))
    return plain


def _read(checkpoint: str | Path, key: str | None, ema: bool) -> Foreign:
    """The checkpoint, with remarks printed and without what Lightning puts before all names."""
    foreign = read_foreign(checkpoint, key, ema)
    for remark in foreign.remarks:
        say(f"{checkpoint}: {remark}")
    if ema and not foreign.averaged:
        raise ValueError(f"--ema: {checkpoint} holds no averaged (EMA) weights; leave it out.")
    prefix = common_prefix(foreign.state, OWNERS)
    return dataclasses.replace(
        foreign, state={name.removeprefix(prefix): value for name, value in foreign.state.items()}
    )


def _timm_network(
    backbone: str | Mapping[str, Any] | None, head: Mapping[str, Any] | None, tasks: Sequence[str]
) -> TimmNetwork:
    if backbone is None or not head or "type" not in head or len(tasks) != 1:
        raise ValueError(
            "a plain state dict says nothing of its network: give --backbone, the name of the timm network, --head, "
            "its head's type (of this package, registered, or module:function of yours), and --task, the one task of "
            "the head. For example --format timm --backbone resnet18 --head MultiScale width=64 --task depth."
        )
    spec = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
    return TimmNetwork(spec, head, tasks[0])


def _save(
    out: Path, model: MultiTaskModel, checkpoint: Path, base: str | Path | None, record: Mapping[str, Any]
) -> dict[str, Any]:
    digest = None if base is None else load_base(TimmBackbone(**model.backbone.spec), checkpoint=base)
    origin = {
        "file": checkpoint.name,
        "sha256": _sha256(checkpoint),
        **record,
        "preprocessing": model.spec["preprocessing"],
        "base": base and Path(base).name,
    }
    save_model(out, model, {"base_hash": digest, "origin": origin})
    say(
        f"{out}: {', '.join(model.tasks)} on {model.backbone.name}, {model.spec['preprocessing']}, "
        f"align_corners={model.align_corners}"
    )
    say(f"base {base}: {digest}" if digest else NO_BASE)
    say(next_step(out, base, digest))
    return {"base_hash": digest, "origin": origin}


def _free(out: Path, checkpoint: Path, overwrite: bool) -> Path:
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: model files end in .safetensors.")
    if out.exists() and (not overwrite or (checkpoint.exists() and out.samefile(checkpoint))):
        raise ValueError(f"{out} exists already; choose another --out or, unless it is the checkpoint, --overwrite it.")
    return out


def choose_tasks(found: Sequence[str], wanted: Sequence[str] = (), named: bool = True) -> dict[str, str]:
    """Choose the heads of a checkpoint.

    Args:
        found: the heads' names in the file.
        wanted: 'OURS' or 'THEIRS=OURS' each; empty for all.
        named: False where the file holds one head and does not name its task.

    Returns:
        {name in the file: our task}.

    Raises:
        ValueError: a name is not in the file or is no task of this package, or two heads have the same task.
    """
    ours = {name: TASK_NAMES.get(name, name) for name in found}
    if wanted:
        new = [
            pair(word, "THEIRS=OURS", "--task normal=normals") if "=" in word else (word, TASK_NAMES.get(word, word))
            for word in wanted
        ]
        ours = {_in_file(theirs, ours, named): task for theirs, task in new}
    if len(set(ours.values())) < max(len(ours), len(wanted)):
        raise ValueError(f"tasks {dict(ours)}, --task {' '.join(wanted)}: every head is of another task.")
    for theirs, task in ours.items():
        if task not in TASKS:
            raise ValueError(
                f"{did_you_mean(task, list(TASKS), 'task')} Name the wanted ones with --task, or give head "
                f"{theirs!r} another name with --task {theirs}=OURS."
            )
    return ours


def _in_file(name: str, ours: Mapping[str, str], named: bool) -> str:
    """The file's name of a head, given by that name or by ours."""
    theirs = next((key for key, value in ours.items() if name in (key, value)), None)
    if theirs is None and (named or len(ours) > 1):
        raise ValueError(did_you_mean(name, list(ours), "head") + " These are in the checkpoint.")
    return theirs or next(iter(ours))


def build(
    parts: Parts, form: Format, chosen: Mapping[str, str], options: NetworkOptions, source: str
) -> MultiTaskModel:
    """The network of the chosen heads, without its weights.

    Args:
        parts: the checkpoint's tensors.
        form: its format.
        chosen: {name in the file: our task}.
        options: of the network.
        source: the file, for messages.

    Raises:
        ValueError: an option is missing, the head has no predictor, or the backbone is no ResNet that timm has.
    """
    options.require_all(source, form.needs)
    assert options.mean is not None and options.std is not None and options.output_stride is not None
    head = {"type": form.head, **options.head}
    if form.head == "MMSegHead":
        head.setdefault("align_corners", options.align_corners)  # mmseg resizes inside and after the head alike
    tasks = {task: _task(task, parts.heads[theirs], form, source) for theirs, task in chosen.items()}
    levels: dict[str, Any] = {} if options.out_indices is None else {"out_indices": options.out_indices}
    backbone = TimmBackbone(**resnet_spec(parts.backbone, options.output_stride, source), **levels)
    return MultiTaskModel(
        backbone, dict.fromkeys(tasks, head), tasks, options.mean, options.std, bool(options.align_corners)
    )


def _task(task: str, head: State, form: Format, source: str) -> dict[str, Any]:
    """The task's spec; a task with classes gets as many as the predictor has channels."""
    if form.predictor not in head:
        raise ValueError(
            f"{source}: the head of {task} has no {form.predictor}; is it a {form.head} head? It holds "
            f"{', '.join(list(head)[:10])}."
        )
    takes_classes = "classes" in inspect.signature(TASKS[task]).parameters
    channels = max(head[form.predictor].shape[:1], default=0)
    return {"type": task, **({"classes": channels} if takes_classes else {})}


def load(model: MultiTaskModel, parts: Parts, form: Format, chosen: Mapping[str, str], source: str) -> list[str]:
    """Load the weights, and print matched, missing and unexpected tensors per part.

    Args:
        model: filled in place.
        parts: the checkpoint's tensors.
        form: its format.
        chosen: {name in the file: our task}.
        source: the file, for messages.

    Returns:
        Names of the checkpoint's tensors that the model does not need.

    Raises:
        ValueError: network and tensors do not match completely.
    """
    unused = [
        f"{form.heads}{theirs}.{name}" for theirs, head in parts.heads.items() if theirs not in chosen for name in head
    ]
    body = load_weights(model.backbone, parts.backbone, source)
    given = {
        f"heads.{task}.{form.inner}{name}": value
        for theirs, task in chosen.items()
        for name, value in parts.heads[theirs].items()
    }
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith("heads.")}
    report = match_report({**given, **parts.unknown}, wanted, [*parts.dropped, *unused])
    say(str(report))
    if not report.full:
        raise ValueError(
            f"{source} does not match the network of its format {form.name}; nothing was written.\n"
            f"{report}\nWhere the head has other options, give them with --head KEY=VALUE."
        )
    model.load_state_dict(given, strict=False)
    return [*(f"{form.backbone}{name.removeprefix('backbone.')}" for name in body.dropped), *report.dropped]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for part in checkpoint_files(path)[0]:
        with part.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
