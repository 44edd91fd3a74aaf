"""How scales are chosen: few merges stand for all, and the criterion picks what trying everything by hand picks."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from builders.tiny import TinySet, family, tasks

from symerge_dense.adaptation.options import make_options
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.evaluation.delta_m import delta_m
from symerge_dense.evaluation.evaluate import evaluate
from symerge_dense.merging.methods.magmax import MagMax
from symerge_dense.merging.methods.tall_masks import TallMasks
from symerge_dense.merging.methods.task_arithmetic import TaskArithmetic
from symerge_dense.models.batchnorm import recalibrate
from symerge_dense.models.multi_task import assemble
from symerge_dense.pipeline import data as sources
from symerge_dense.pipeline.comparison import tuning
from symerge_dense.pipeline.comparison.methods import JOINT, Static, draws
from symerge_dense.pipeline.comparison.model_pool import ModelPool
from symerge_dense.pipeline.comparison.references import candidates
from symerge_dense.pipeline.comparison.scoring import LABELLED_IMAGES, Scoring
from symerge_dense.pipeline.comparison.tuning import IMAGES, OWN, Agreement, Family, Tuner, beyond, knob_of, values_of
from symerge_dense.pipeline.config import RunConfig
from symerge_dense.registry import ADAPTIVE_METHODS, MERGERS

SCALES = [0.1, 0.4, 0.7, 1.0]
CPU = torch.device("cpu")
TUNED = [name for name in MERGERS if knob_of(MERGERS[name])]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Real experts on their models, and a config that names the same data."""
    base, experts, _ = family(noise=0.03)
    options = make_options(batch_size=4, recalibration_images=6)
    models = ModelPool(
        base, experts, Unlabelled(TinySet({}, count=10, split="pool")), options, tmp_path_factory.mktemp("models"), CPU
    )
    data = {split: {"type": TinySet, "split": split, "count": 8} for split in ("train", "test", "unlabelled")}
    specs = {
        name: {"type": type(task), **({"classes": 4} if name == "segmentation" else {})}
        for name, task in tasks().items()
    }
    config = RunConfig(
        "tiny",
        specs,
        data,
        {"name": "resnet10t"},
        {"type": "MultiScale"},
        {"random_init": True},
        {"recipe": {"epochs": 1, "batch_size": 4}},
        evaluation={"batch_size": 3},
    )
    return SimpleNamespace(models=models, config=config, scoring=Scoring(config, CPU))


def tuner(place, **changes):
    return Tuner(**{"models": place.models, "scoring": place.scoring, "scales": SCALES, **changes})


def merge_by(place, kind, knob):
    def merge(value):
        merger = kind(**{knob: value})
        wanted = list(place.models.experts) if merger.per_task else [None]
        return {task: place.models.merge(merger, task=task) for task in wanted}

    return merge


def by_hand(place, scale):
    """Task arithmetic without the package's merging: base + scale * sum of task vectors, BatchNorm re-estimated."""
    base, experts = place.models.base, place.models.experts
    model = assemble(base, experts).eval()
    origin = base.state_dict()
    with torch.no_grad():
        for name, weight in model.backbone.named_parameters():
            vectors = [expert.backbone.state_dict()[name] - origin[name] for expert in experts.values()]
            weight.copy_(origin[name] + scale * sum(vectors))
    recalibrate(model, place.models.images(10))
    return model


# -- the grid ---------------------------------------------------------------------------------------------------------
def test_every_method_tries_its_default_and_the_shared_grid():
    for name in TUNED:
        knob, values = knob_of(MERGERS[name]), values_of(MERGERS[name], SCALES)
        assert getattr(MERGERS[name](), knob) in values and values == sorted(set(values))
        assert set(OWN.get(knob, SCALES)) <= set(values)
    assert 1.2 in values_of(MERGERS["pcb"], SCALES) and knob_of(MERGERS["lines"]) == "beta"
    assert 0.0 in values_of(MERGERS["lines"], SCALES) and knob_of(MERGERS["tall_masks"]) == "threshold"
    assert knob_of(MERGERS["average"]) is None and values_of(MERGERS["average"], SCALES) == []


def test_the_grid_goes_on_beyond_its_end():
    assert beyond([0.5, 1.0], [0.5, 1.0]) == [1.5, 2.0, 2.5, 3.0]
    assert beyond([0.9, 1.0, 1.2], [0.9, 1.0])[:2] == [1.3, 1.4] and beyond([0.9, 1.0, 1.2], [0.9, 1.0])[-1] == 3.0
    assert beyond([0.3], [0.3]) == [] and beyond([0.5, 1.0, 4.0], [0.5, 1.0]) == []


@pytest.mark.parametrize("peak, tried", [(0.4, 4), (1.0, 5), (1.6, 7), (99.0, 4 + 6)])
def test_scales_beyond_the_grid_are_tried_while_they_are_better(place, monkeypatch, peak, tried):
    chooser, asked = tuner(place), []
    monkeypatch.setattr(Tuner, "_judge", lambda self, state: -abs(state - peak))
    monkeypatch.setattr(tuning, "Family", lambda merge, values: merge)
    kind = type("Scaled", (), {"__init__": lambda self, scale=0.4: None})
    best, found = chooser.best(kind, lambda value: asked.append(value) or value)
    assert len(asked) == len(found) == tried and best == pytest.approx(min(found, key=lambda v: abs(v - peak)))
    assert max(found) <= 3.0


# -- few merges for all values ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TUNED)
def test_a_family_is_the_method_at_every_value(place, name):
    kind, knob = MERGERS[name], knob_of(MERGERS[name])
    calls = []
    merge = merge_by(place, kind, knob)
    values = [0.1, 0.25, 0.5, 0.8, 1.0]
    family_of = Family(lambda value: calls.append(value) or merge(value), values)
    assert sorted(calls) == [0.1, 0.5, 1.0]
    for value in (0.1, 0.8, 1.4):
        given, wanted = family_of(value), merge(value)
        for task, state in wanted.items():
            for tensor, expected in state.items():
                torch.testing.assert_close(given[task][tensor], expected, rtol=1e-5, atol=2e-6)
    assert len(calls) == (3 if family_of.affine else 5)
    assert family_of.affine == (knob not in OWN)


def test_what_is_not_on_a_line_is_merged_each_time():
    calls = []

    def merge(value):
        calls.append(value)
        return {None: {"weight": torch.tensor([1.0, value**2]), "count": torch.tensor(3)}}

    bent = Family(merge, [0.0, 0.5, 1.0, 2.0])
    assert not bent.affine and float(bent(0.7)[None]["weight"][1]) == pytest.approx(0.49)
    assert calls == [0.0, 1.0, 2.0, 0.7] or sorted(calls) == [0.0, 0.7, 1.0, 2.0]
    calls.clear()
    few = Family(merge, [0.0, 0.5, 1.0])
    assert calls == [] and not few.affine and float(few(0.5)[None]["weight"][1]) == 0.25


# -- the criteria -----------------------------------------------------------------------------------------------------
def test_agreement_picks_the_scale_that_trying_all_by_hand_picks(place):
    def distance(model):
        batches = place.models.images(10)
        losses = {}
        for name, expert in place.models.experts.items():
            task, values = model.tasks[name], []
            for batch in batches:
                with torch.no_grad():
                    ours, theirs = (net(batch, mode="tensor")[name] for net in (model, expert))
                values += [
                    float(task.pixel_loss(ours[i : i + 1], task.self_label(theirs[i : i + 1])).mean())
                    for i in range(len(batch))
                ]
            losses[name] = sum(values) / len(values)
        return losses

    unit = distance(by_hand(place, 1 / 3))
    wanted = {}
    for scale in [0.1, 0.3, 0.4, 0.7, 1.0]:
        found = distance(by_hand(place, scale))
        wanted[scale] = -sum(found[task] / unit[task] for task in found) / len(found)
    best, values = tuner(place).best(TaskArithmetic, merge_by(place, TaskArithmetic, "scale"))
    assert {value: values[value] for value in wanted} == pytest.approx(wanted, rel=1e-3)
    assert best == max(values, key=values.get) and len({round(value, 4) for value in values.values()}) > 3


def test_agreement_reads_no_label_and_the_average_is_its_unit(place):
    TinySet.targets_read.clear()
    tuner(place).best(MagMax, merge_by(place, MagMax, "scale"))
    assert TinySet.targets_read == []
    agreement = Agreement(place.models)
    assert agreement(place.models.own_networks) == pytest.approx(0.0, abs=1e-4)  # nobody agrees better with the experts
    average = place.models.place(place.models.merge(TaskArithmetic(1 / 3)), images=agreement.images)
    assert agreement({None: average}) == pytest.approx(-1.0, abs=1e-3)
    assert sum(map(len, agreement.images)) == 10 <= IMAGES


def test_labels_pick_the_scale_that_trying_all_by_hand_picks(place):
    TinySet.targets_read.clear()
    best, values = tuner(place, criterion="labels").best(TaskArithmetic, merge_by(place, TaskArithmetic, "scale"))
    assert {split for split, _, _ in TinySet.targets_read} == {"train"}
    loader = sources.loader(place.config, sources.dataset(place.config, "train", place.config.tasks))
    reference = {}
    for expert in place.models.experts.values():
        reference |= evaluate(expert, loader, "expert")
    wanted = {
        scale: delta_m(evaluate(by_hand(place, scale), loader, "by hand"), reference)["mean"]
        for scale in (0.1, 0.3, 0.4, 0.7, 1.0)
    }
    assert {value: values[value] for value in wanted} == pytest.approx(wanted, rel=1e-3, abs=0.3)
    assert best == max(values, key=values.get)


def test_a_validation_split_is_taken_where_there_is_one(place):
    assert place.scoring.tuning_split == "train"
    held_out = {"type": TinySet, "split": "held-out", "count": 3 * LABELLED_IMAGES, "augment": {"flip": 1.0}}
    data = {**place.config.data, "validation": held_out}
    scoring = Scoring(dataclasses.replace(place.config, data=data), CPU)
    assert scoring.tuning_split == "validation" and len(scoring.labelled.dataset) == LABELLED_IMAGES
    plain = sources.dataset(place.config, "train", place.config.tasks)
    plain.split = "held-out"
    assert torch.equal(scoring.labelled.dataset[0]["depth"], plain[0]["depth"]), "no augmentation while tuning"


def test_an_undefined_criterion_is_the_worst(place, monkeypatch):
    chooser = tuner(place)
    numbers = iter([math.nan, -1.0, -2.0, math.nan, -math.inf])
    monkeypatch.setattr(chooser, "agreement", Scripted(numbers, place.models.images(4)))
    best, values = chooser.best(TaskArithmetic, merge_by(place, TaskArithmetic, "scale"))
    assert best == 0.3 and values[0.1] == -math.inf


class Scripted:
    """An agreement that says what it is told to."""

    def __init__(self, numbers, images):
        self.numbers, self.images = numbers, images

    def __call__(self, networks):
        return next(self.numbers)


def test_an_unknown_criterion_is_refused(place):
    with pytest.raises(ValueError, match="Did you mean 'agreement'"):
        tuner(place, criterion="agrement")


# -- who takes part ---------------------------------------------------------------------------------------------------
def test_everybody_who_is_registered_takes_part():
    everybody = candidates(lambda base: None)
    names = [entrant.name for entrant in everybody]
    assert names[:2] == ["experts", "symerge"] and sorted(names) == sorted(
        ["experts", *ADAPTIVE_METHODS, *MERGERS, JOINT]
    )
    assert JOINT not in [entrant.name for entrant in candidates(None)]
    for entrant in everybody:
        assert entrant.block in ("reference", "plain", "masks") and entrant.data in ("none", "unlabelled", "labels")


def test_only_methods_that_draw_are_run_again_with_other_seeds(place):
    assert {name for name in MERGERS if Static(name).random} == {"dare", "dare_ties", "fisher"}
    assert not draws(MERGERS["dare"](drop=0.0)) and draws(MERGERS["dare"](drop=0.5))


def test_masks_keep_a_task_vector_and_a_bit_per_weight_and_task(place):
    made = Static("emr").make(place.models, tuner(place), 0)
    weights = sum(weight.numel() for weight in place.models.base.parameters())
    assert made.facts["extra_parameters"] == weights + 3 * math.ceil(weights / 32)
    assert set(made.networks) == set(place.models.experts) and made.block == "masks" and made.data == "none"
    for task, network in made.networks.items():
        assert list(network.tasks) == [task]
    assert Static("average").make(place.models, tuner(place), 0).facts["extra_parameters"] == 0


def test_data_names_what_the_method_and_its_tuning_looked_at(place):
    by = {criterion: tuner(place, criterion=criterion) for criterion in ("agreement", "labels")}
    single = tuner(place, scales=[0.3], criterion="labels")
    wanted = {
        ("task_arithmetic", "agreement"): "unlabelled",
        ("task_arithmetic", "labels"): "labels",
        ("average", "labels"): "none",
        ("fisher", "labels"): "unlabelled",
    }
    for (name, criterion), data in wanted.items():
        assert Static(name).make(place.models, by[criterion], 0).data == data
    alone = Static("task_arithmetic").make(place.models, single, 0)
    assert alone.data == "none" and "tuning" not in alone.facts


def test_a_tuned_method_is_merged_at_the_best_value(place):
    made = Static("tall_masks").make(place.models, tuner(place), 0)
    best = made.facts["tuning"]["best"]
    values = {float(value): score for value, score in made.facts["tuning"]["values"].items()}
    assert values[best] == max(values.values()) and made.facts["options"] == {"threshold": best}
    assert made.facts["tuning"]["argument"] == "threshold"
    for task, network in made.networks.items():
        state = place.models.merge(TallMasks(best), task=task)
        weights = dict(network.backbone.named_parameters())
        assert all(torch.equal(weights[name], state[name]) for name in weights)


def test_the_methods_that_draw_at_random_are_known():
    """Every method is tried on one matrix: several seeds are run of those alone whose results differ."""
    drawn = {candidate.name for candidate in candidates(None) if candidate.name in MERGERS and candidate.random}
    assert drawn == {"dare", "dare_ties", "fisher"}
