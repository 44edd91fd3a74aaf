"""A config file as validated plain values. The classes of this package get these, never MMEngine's ``Config``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from symerge_dense.adaptation.options import SyMergeOptions, make_options
from symerge_dense.engine.runner import PASSED_ON
from symerge_dense.pipeline.config_checks import check_keys, check_sections, explained
from symerge_dense.pipeline.config_files import custom_imports, find_config, parse_overrides
from symerge_dense.pipeline.data_section import check_data
from symerge_dense.pipeline.evaluation_checks import check_evaluation
from symerge_dense.pipeline.expert_facts import TAKEN, completed
from symerge_dense.registry import DATASETS, HEADS, TASKS, TRANSFORMS, Registry, import_plugins, search_also

Spec = dict[str, Any]
RUNNER_KEYS = (*PASSED_ON, "custom_imports", "val_interval")
"""Top-level keys of a config that are MMEngine's own."""
FORMER_NAMES = {
    f"symerge_dense.{now}": f"symerge_dense.{before}"
    for now, before in {
        "datasets.rooms.dataset.Rooms": "datasets.rooms.Rooms",
        "datasets.image_folder.ImageFolder": "datasets.folder.ImageFolder",
        "datasets.nyuv2.mtan.NYUv2": "datasets.nyuv2.NYUv2",
        "datasets.nyuv2.mat.NYUv2Mat": "datasets.nyuv2_mat.NYUv2Mat",
        "datasets.nyuv2.parquet.NYUv2Parquet": "datasets.nyuv2_parquet.NYUv2Parquet",
        "datasets.nyuv2.listed.NYUDMT": "datasets.nyud_mt.NYUDMT",
        "datasets.nyuv2.listed.NYUDv2": "datasets.nyudv2.NYUDv2",
        "models.heads.native.DeepLab": "experts.heads.DeepLab",
        "models.heads.native.MultiScale": "experts.heads.MultiScale",
        "models.heads.native.Linear": "experts.heads.Linear",
        "models.heads.mmseg.MMSegHead": "experts.mmseg_head.MMSegHead",
        "tasks.intrinsic.Albedo": "tasks.albedo.Albedo",
        "tasks.intrinsic.Shading": "tasks.shading.Shading",
    }.items()
}
"""{path of a class: its first path}. Fingerprints and records keep the first, so that older experts and runs match."""
SCALES = tuple(n / 10 for n in range(1, 11))
NO_NORMALISATION = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}


@dataclass(frozen=True)
class RunConfig:
    """What a config file says.

    Args:
        name: of the config file, without its ending.
        tasks: {task name: task spec}, the tasks of the merged model in table order.
        data: specs of the data sets 'unlabelled' (the pool, or a list of pools side by side, see ``Pools``), 'train'
            (labels; needed only where something is trained) and 'test' (labels; without it a run measures its agreement
            with the experts); 'validation' for tuning on labels; others may be named in ``evaluation.also`` or by
            ``symerge test --split``.
        backbone: arguments of ``TimmBackbone``.
        head: spec of the head of every task.
        base: 'checkpoint' path (with 'key' and 'ema' of ``load_base``), 'pretrained' True, 'train' {tasks, recipe}, or
            'random_init' True: the first weights; or 'mean' True: the mean of experts that have no common base.
        experts: 'recipe' to train missing ones, 'checkpoints' {task: path} of existing ones, 'folder' to keep them in,
            'seed' of their training, 'match' {type, images} to bring their units into one order (``Matching``).
        preprocessing: mean and std on the 0..255 scale.
        heads: {task: spec}, in place of ``head``.
        adaptation: options of SyMerge, with an optional 'preset'.
        baselines: 'scales' of task arithmetic; of a comparison 'methods' (names of its rows; all where missing) and
            'variants' {row: dict(method=..., further options)}, see ``pipeline.comparison.variants``.
        evaluation: 'batch_size', 'num_workers', 'panels' (images in the picture), 'protocol' (``PROTOCOLS``),
            'held_out' (images of the pool that a run without labels measures agreement on), 'also' (further labelled
            sets of ``data`` that every row is measured on; where it is missing, 'outside' if ``data`` has one).
        align_corners: of the outputs' upsampling.
        seed: of the adaptation.
        runner: keys of ``RUNNER_KEYS`` at the top of the config, which are passed on to MMEngine's runner.

    Raises:
        ValueError: an unknown key or name, or a value that is not allowed.
    """

    name: str
    tasks: Spec
    data: Spec
    backbone: Spec
    head: Spec
    base: Spec
    experts: Spec
    preprocessing: Spec = field(default_factory=lambda: dict(NO_NORMALISATION))
    heads: Spec = field(default_factory=dict)
    adaptation: Spec = field(default_factory=dict)
    baselines: Spec = field(default_factory=lambda: {"scales": list(SCALES)})
    evaluation: Spec = field(default_factory=dict)
    align_corners: bool = False
    seed: int = 0
    runner: Spec = field(default_factory=dict)

    def __post_init__(self) -> None:
        with explained(f"config {self.name}"):
            for section in dataclasses.fields(self):
                if section.type == "Spec" and not isinstance(getattr(self, section.name), Mapping):
                    raise ValueError(f"{section.name} is {getattr(self, section.name)!r}; it must be a dict.")
            check_sections(vars(self))
            check_data(vars(self))
            check_evaluation(vars(self))

    @property
    def options(self) -> SyMergeOptions:
        """The adaptation's options, validated."""
        return make_options(**self.adaptation)

    @property
    def record(self) -> Spec:
        """The config as JSON-able data. An empty ``runner`` is left out, as in files of earlier versions."""
        return {key: to_json(value) for key, value in vars(self).items() if key != "runner" or value}

    @property
    def scales(self) -> list[float]:
        """The scales that are tried where a method has one."""
        return list(self.baselines.get("scales", SCALES))

    def head_of(self, task: str) -> Spec:
        """Head spec of one task.

        Args:
            task: its name.
        """
        return dict(self.heads.get(task, self.head))


def plain(value: Any) -> Any:
    """A config value as dicts, lists, tuples and scalars; classes stay classes.

    Args:
        value: of an MMEngine config.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def to_json(value: Any) -> Any:
    """A plain config value as JSON-able data.

    Args:
        value: a class becomes its first qualified name (``FORMER_NAMES``), a path its text.
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, type):
        name = f"{value.__module__}.{value.__qualname__}"
        return FORMER_NAMES.get(name, name)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def type_names(value: Any) -> Any:
    """A config value with every class replaced by the text that a registry finds it by.

    Args:
        value: a class becomes its registered name, or else its dotted path.
    """
    if isinstance(value, Mapping):
        return {key: type_names(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(type_names(item) for item in value)
    if not isinstance(value, type):
        return value
    entries = (entry for registry in (DATASETS, TRANSFORMS, TASKS, HEADS) for entry in registry.module_dict.items())
    return next((name for name, owner in entries if owner is value), f"{value.__module__}.{value.__qualname__}")


def by_name(record: Any) -> Any:
    """A recorded config in which tasks and heads go by name, as they may in files of earlier versions.

    Args:
        record: as ``RunConfig.record`` gives it.
    """
    names = {to_json(owner): name for kinds in (TASKS, HEADS) for name, owner in kinds.module_dict.items()}

    def named(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    return named(record)


def config_hash(*values: Any) -> str:
    """Eight hex digits that change with any of the values.

    Args:
        *values: plain config values.
    """
    text = json.dumps([to_json(value) for value in values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def load_config(
    path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), seed: int | None = None
) -> RunConfig:
    """Read and check a config.

    Args:
        path: a file, or the name of a config that comes with the package.
        overrides: ``{'key.subkey': value}``, or words ``key.subkey=value`` of a command line.
        seed: of the adaptation, in place of the config's.

    Raises:
        ValueError: the file is missing or fails, has an unknown key or name, or a value that is not allowed.
    """
    path = find_config(path)
    changes = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    return config_of(path.stem, config_values(path, changes), seed, f"config {path.name}")


def config_of(name: str, values: Mapping[str, Any], seed: int | None = None, where: str = "the config") -> RunConfig:
    """A config from its values. What the files of its experts say may be left out.

    Args:
        name: of the config.
        values: {section: content}.
        seed: of the adaptation, in place of the values'.
        where: what to call it in messages.

    Raises:
        ValueError: an unknown key or name, a missing one, or a value that is not allowed.
    """
    known = [f.name for f in dataclasses.fields(RunConfig) if f.name != "name"]
    values = {key: value for key, value in values.items() if isinstance(value, dict | list | tuple | str | int | float)}
    runner = {key: values.pop(key) for key in RUNNER_KEYS if key in values}
    import_plugins(custom_imports(runner.pop("custom_imports", {})))
    check_keys(values, [*(name for name in known if name != "runner"), *RUNNER_KEYS], where)
    values = completed(values)
    for key in ("tasks", "data", "backbone", "head", "base", "experts"):
        if key not in values:
            raise ValueError(f"{where} has no {key!r}; {_remedy(key)}.")
    if seed is not None:
        values["seed"] = seed
    return RunConfig(name=name, **_with_classes(values), runner=runner)


def _remedy(key: str) -> str:
    if key == "base":
        return "name what the experts were fine-tuned from, for example base=dict(checkpoint='base.safetensors')"
    if key in TAKEN:
        return "start from one in configs/, or name a file for every task in experts.checkpoints, which say it"
    return "start from one in configs/"


def _with_classes(values: Spec) -> Spec:
    """Config values with every registered name replaced by its class: both spellings mean the same."""

    def named(registry: Registry[Any], spec: Any) -> Any:
        if isinstance(spec, list | tuple):
            return [named(registry, one) for one in spec]
        kind = spec.get("type") if isinstance(spec, Mapping) else None
        return (
            {**spec, "type": registry.get(kind)}
            if isinstance(kind, str) and (kind in registry or "." in kind)
            else spec
        )

    found = dict(values)
    for section, registry in (("data", DATASETS), ("tasks", TASKS), ("heads", HEADS)):
        if isinstance(found.get(section), Mapping):
            found[section] = {key: named(registry, spec) for key, spec in found[section].items()}
    found["head"] = named(HEADS, found.get("head"))
    train = found.get("base", {}).get("train") if isinstance(found.get("base"), Mapping) else None
    if isinstance(train, Mapping) and isinstance(train.get("tasks"), Mapping):
        tasks = {key: named(TASKS, spec) for key, spec in train["tasks"].items()}
        found["base"] = {**found["base"], "train": {**train, "tasks": tasks}}
    return found


def config_values(path: str | Path, overrides: Mapping[str, Any]) -> Spec:
    """The top-level values of a config file without its ``_names``, not checked.

    Args:
        path: of the file.
        overrides: ``{'key.subkey': value}``.

    Raises:
        ValueError: there is any error in the file's code.
    """
    path = Path(path)
    search_also(os.getcwd(), str(path.resolve().parent))  # for the user's own packages
    try:
        config = Config.fromfile(path, import_custom_modules=False)
        config.merge_from_dict(dict(overrides))
        return {key: plain(value) for key, value in config.items() if not key.startswith("_")}
    except Exception as error:  # the file is a program: it can fail in any way
        raise ValueError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
