"""Where runs on sentences are made and measured: a base, an expert per task, and the library's mergers on both."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from symerge_dense.adaptation.method import OptionVariant
from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.evaluation.delta_m import Compared, delta_m
from symerge_dense.evaluation.scores import Scores
from symerge_dense.fileio import atomic_write
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.models.kept_files import set_aside
from symerge_dense.models.weight_files import existing, state_hash
from symerge_dense.pipeline.comparison.methods import Static
from symerge_dense.pipeline.comparison.resources import measured
from symerge_dense.pipeline.comparison.tuning import knob_of, values_of
from symerge_dense.pipeline.config import Spec, to_json
from symerge_dense.pipeline.config_checks import check_keys
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS
from symerge_dense.studies.frame.cache import RunCache, content_hash
from symerge_dense.studies.frame.laboratory import EXPERTS
from symerge_dense.studies.frame.workplace import Numbers, Run, Workplace
from symerge_dense.studies.language.config import SPLITS, TextConfig, check_used
from symerge_dense.studies.language.encoder import Recipe, TextEncoder, finetune, pretrain
from symerge_dense.studies.language.merged import USED, Expert, adapt, placed
from symerge_dense.studies.language.sentences import TASKS, Text, sentences
from symerge_dense.tasks.metric import Metric

State = dict[str, Tensor]
ACCURACY = "accuracy"
HASH = "hash"  # in the header of a file, of its tensors


class TextLaboratory(Workplace):
    """Makes and measures what a run asks for, on sentences.

    Args:
        config: of the run, with its seed.
        cache: keeps base, experts and results.
    """

    def __init__(self, config: TextConfig, cache: RunCache) -> None:
        self.config, self.cache, self.cost = config, cache, {}

    @classmethod
    def read(cls, name: str, values: Mapping[str, Any], where: str) -> TextConfig:
        check_keys(values, [one.name for one in dataclasses.fields(TextConfig) if one.name != "name"], where)
        for key in ("tasks", "sentences"):
            if key not in values:
                raise ValueError(f"{where} has no {key!r}; see configs/studies/text.py.")
        return TextConfig(name, **values)

    @classmethod
    def of_run(cls, name: str, values: Mapping[str, Any], run: Run, cache: RunCache) -> TextLaboratory:
        laboratory = cls(cls.read(name, {**values, "seed": run["seed"]}, "its config"), cache)
        laboratory.options_of(run)
        return laboratory

    @property
    def tasks(self) -> list[str]:
        return list(self.config.tasks)

    @property
    def ground(self) -> str:
        config = self.config
        return content_hash("text", config.encoder, config.base, config.experts, config.sentences["train"], config.seed)

    def asked(self, run: Run, hashes: Mapping[str, str]) -> Spec:
        config, options = self.config, vars(self.options_of(run))
        return {
            "run": to_json({key: value for key, value in run.items() if key not in ("label", "config", "tasks")}),
            "tasks": self.tasks,
            "sentences": to_json(config.sentences),
            "options": to_json({name: options[name] for name in USED}),
            "scales": to_json(config.baselines["scales"]),
            "seed": config.seed,
            "models": {name: hashes[name] for name in ("base", *(f"expert {task}" for task in self.tasks))},
        }

    def options_of(self, run: Run) -> SyMergeOptions:
        """The options of the adaptation that a run has.

        Args:
            run: of the grid.

        Raises:
            ValueError: its method needs images, or an option is not allowed.
        """
        name, options = run["method"], dict(run.get("options", {}))
        if name in MERGERS and Static(name, options).default.needs:
            raise ValueError(f"{name} needs statistics of images, and sentences have none; take another method.")
        if name not in ADAPTIVE_METHODS:
            return self.config.options
        kind = ADAPTIVE_METHODS[name]
        if not issubclass(kind, OptionVariant):
            raise ValueError(f"{name} adapts models of images; on sentences take symerge or one of its parts.")
        changes = {**kind.changes, **options}
        check_used(changes)
        return dataclasses.replace(self.config.options, **changes)

    # -- sentences, base and experts ----------------------------------------------------------------------------------
    @cached_property
    def text(self) -> dict[str, Text]:
        """{split: its sentences}."""
        return {split: sentences(self.config.sentences[split], number) for number, split in enumerate(SPLITS)}

    def train(self) -> dict[str, str]:
        with self.cache.locked(self.ground):
            base, experts = self.base, self.experts
        hashes = {"base": state_hash(base.state_dict())}
        return hashes | {f"expert {task}": state_hash(_joined(one)) for task, one in experts.items()}

    @cached_property
    def base(self) -> TextEncoder:
        """The encoder that knows the language."""
        config, recipe = self.config, Recipe(**self.config.base)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            encoder = TextEncoder(**config.encoder)
        path = self._file("base")
        if (state := _kept(path, encoder.state_dict())) is None:
            pretrain(encoder, self.text["train"].words, recipe, config.seed)
            _save(path, state := encoder.state_dict())
        encoder.load_state_dict(state)
        return encoder.requires_grad_(False).eval()

    @cached_property
    def experts(self) -> dict[str, Expert]:
        """{task: the base fine-tuned for it, with a linear head}."""
        return {task: self._expert(task) for task in self.tasks}

    def _expert(self, task: str) -> Expert:
        train, path = self.text["train"], self._file(task)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            head = nn.Linear(self.base.norm.normalized_shape[0], len(TASKS[task]))
        expert = Expert(copy.deepcopy(self.base).requires_grad_(True), head)
        if (state := _kept(path, _joined(expert))) is None:
            finetune(*expert, train.words, train.labels[task], Recipe(**self.config.experts), self.config.seed)
            _save(path, state := _joined(expert))
        nn.ModuleDict(expert._asdict()).load_state_dict(state)
        return Expert(*(part.requires_grad_(False).eval() for part in expert))

    def _file(self, what: str) -> Path:
        return self.cache.experts / f"text-{what}-{self.ground}.safetensors"

    # -- methods and metrics ------------------------------------------------------------------------------------------
    def make(self, run: Run) -> dict[str, Expert]:
        """Run a method.

        Args:
            run: with 'method' and perhaps 'options'.

        Returns:
            {task: encoder and head}; all tasks have one encoder, but for experts and methods with masks.
        """
        name, options = run["method"], dict(run.get("options", {}))
        if name == EXPERTS:
            return self.experts
        with measured() as self.cost:
            if name in ADAPTIVE_METHODS:
                pool = self.text["unlabelled"].words
                return adapt(self.base, self.experts, pool, self.options_of(run), self.config.seed)
            kind, knob = MERGERS[name], knob_of(MERGERS[name])
            values = values_of(kind, self.config.baselines["scales"])
            if knob is None or knob in options or len(values) < 2:
                return self._merged(name, options)
            tried = [self._merged(name, {**options, knob: value}) for value in values]
            return max(tried, key=self._agreement)

    def _merged(self, name: str, options: Spec) -> dict[str, Expert]:
        base, specs = self.base.state_dict(), tensor_specs(self.base)
        states = {task: one.encoder.state_dict() for task, one in self.experts.items()}
        merger, seed = MERGERS[name](**options), self.config.seed
        if merger.per_task:
            own = {task: merge_state(merger, base, states, specs, seed=seed, task=task) for task in states}
        else:
            own = dict.fromkeys(states, merge_state(merger, base, states, specs, seed=seed))
        return {task: Expert(placed(self.base, own[task]), one.head) for task, one in self.experts.items()}

    def _agreement(self, networks: Mapping[str, Expert]) -> float:
        """Share of unlabelled sentences on which networks decide as the experts, over all tasks."""
        pool = self.text["unlabelled"].words
        return sum(
            float((_decide(networks[task], pool) == _decide(expert, pool)).float().mean())
            for task, expert in self.experts.items()
        )

    def numbers(self, networks: Mapping[str, Expert]) -> Numbers:
        """Accuracy of finished networks, and their Delta_m against the experts.

        Args:
            networks: {task: encoder and head}.

        Returns:
            'delta_m', 'delta_m/TASK' and 'TASK/accuracy', all in percent.
        """
        scores, about = self._scores(networks), Compared(ACCURACY, (ACCURACY,))
        deltas = delta_m(scores, self._scores(self.experts), tasks=dict.fromkeys(scores, about))
        own = {f"delta_m/{task}": value for task, value in deltas.items() if task != "mean"}
        accuracies = {f"{task}/{ACCURACY}": found[ACCURACY].value for task, found in scores.items()}
        return {"delta_m": deltas["mean"], **own, **accuracies}

    def _scores(self, networks: Mapping[str, Expert]) -> Scores:
        words, labels = self.text["test"]
        right = {task: (_decide(one, words) == labels[task]).float().mean() for task, one in networks.items()}
        return {task: {ACCURACY: Metric(100 * float(share), True)} for task, share in right.items()}


@torch.no_grad()
def _decide(network: Expert, words: Tensor) -> Tensor:
    found: Tensor = network.head(network.encoder(words)).argmax(1)
    return found


def _joined(expert: Expert) -> State:
    return nn.ModuleDict(expert._asdict()).state_dict()


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    with atomic_write(path) as temporary:
        about = {HASH: state_hash(state)}
        save_file({name: value.contiguous() for name, value in state.items()}, temporary, about)


def _kept(path: Path, wanted: State) -> State | None:
    """The state in a file, of the names and shapes that are wanted; None where there is no file, or a damaged one.

    A damaged one is set aside.
    """
    if not path.exists():
        return None
    try:
        with safe_open(existing(path), framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            digest = (file.metadata() or {}).get(HASH)  # earlier versions kept none
        shapes, others = ({name: value.shape for name, value in one.items()} for one in (wanted, state))
        why = "" if digest in (None, state_hash(state)) else "its hash is another"
        why = why if shapes == others else "it holds another network"
        if not why:
            return state
    except SafetensorError as error:
        why = str(error)
    set_aside(path, f"{path} is damaged ({why})")
    return None
