"""The rule of every study flips when the planted numbers flip, and decides nothing where they scatter."""

import itertools

import pytest
from builders.studies import deltas, planted

from symerge_dense.registry import STUDIES
from symerge_dense.studies.cross_task_layer import GAIN as CROSS_GAIN
from symerge_dense.studies.frame.study import Measured
from symerge_dense.studies.linearity import Linearity
from symerge_dense.studies.pilot import BATCHNORM
from symerge_dense.studies.transfer import GAIN

SEEDS = 3
OWN_NUMBERS = {  # not one Δm a row
    "self_labels",
    "linearity",
    "pilot",
    "transfer",
    "transfer_per_tensor",
    "scaling",
    "cross_task_layer",
}


# -- joint or parts: tests/studies/test_parts.py ----------------------------------------------------------------------
def entropy_runs(labels, entropy, **study):
    """Runs of the whole grid: the Delta_m that each objective ends at, where it starts at -10."""
    kind = STUDIES["self_labels"](**study)
    found = []
    for run in kind.grid(["segmentation", "edges"]):
        value = {"labels": labels, "entropy": entropy, None: -10.0}[run.get("objective")]
        for seed in range(SEEDS):
            numbers = {f"delta_m/{task}": value for task in run["tasks"]} | {"diverged": 0.0}
            found.append(Measured({**run, "seed": seed}, numbers))
    return kind, found


@pytest.mark.parametrize(
    "labels, entropy, outcome", [(-5.0, -50.0, "confirmed"), (-5.0, -12.0, "refuted"), (-50.0, -50.0, "refuted")]
)
def test_entropy_collapses_and_labels_do_not(labels, entropy, outcome):
    kind, measured = entropy_runs(labels, entropy)
    assert kind.verdict(measured).outcome == outcome


def test_a_loss_that_is_not_finite_is_a_collapse_and_so_is_an_undefined_score():
    kind, measured = entropy_runs(-5.0, -5.0)
    for number, one in enumerate(measured):
        if one.run.get("objective") == "entropy":
            measured[number] = Measured(one.run, {"diverged": 1.0})
    verdict = kind.verdict(measured)
    assert verdict.outcome == "confirmed" and verdict.findings["collapsed share, entropy"].mean == 1.0


# -- the pilot --------------------------------------------------------------------------------------------------------
def pairs(slope):
    """Runs of the whole grid: the merge of a pair keeps ``slope`` times what the head keeps on the other's encoder."""
    tasks = ["segmentation", "depth", "normals", "edges"]
    places = {pair: place / 12 for place, pair in enumerate(itertools.permutations(tasks, 2))}  # (encoder, head)
    found = []
    for run, seed in itertools.product(STUDIES["pilot"]().grid(tasks), range(SEEDS)):
        if "encoder" in run:
            values = {head: place for (encoder, head), place in places.items() if encoder == run["encoder"]}
        else:
            values = {}
            for encoder, head in itertools.permutations(run["tasks"]):
                noise = ((round(12 * places[encoder, head]) * 7) % 5 - 2) / 40
                values[head] = 0.5 + slope * places[encoder, head] + noise * (1 + 0.1 * seed)
        numbers = {f"{head}{suffix}": value for suffix in BATCHNORM for head, value in values.items()}
        found.append(Measured({**run, "seed": seed}, numbers))
    return found


@pytest.mark.parametrize("slope, outcome", [(0.5, "confirmed"), (-0.5, "refuted"), (0.0, "refuted")])
def test_the_pilot_follows_the_correlation(slope, outcome):
    verdict = STUDIES["pilot"]().verdict(pairs(slope))
    assert verdict.outcome == outcome and "12 ordered pairs" in verdict.reason and len(verdict.findings) == 4


# -- one number per row -----------------------------------------------------------------------------------------------
def rows(kind, default, other=None):
    """Delta_m of every row of the grid: ``default`` for the first, ``other`` for the rest."""
    labels = list(dict.fromkeys(run["label"] for run in kind.grid(["segmentation", "depth", "normals"])))
    return {label: default if other is None or label == labels[0] else other for label in labels}


@pytest.mark.parametrize("other, outcome", [(-2.5, "confirmed"), (-9.0, "refuted"), (-4.0, "inconclusive")])
def test_sensitivity_is_what_a_factor_of_three_costs(other, outcome):
    kind = STUDIES["sensitivity"]()
    assert kind.verdict(deltas(rows(kind, -2.0, other), spread=0.2)).outcome == outcome


def test_one_option_that_has_to_be_hit_refutes_and_a_far_value_does_not():
    kind = STUDIES["sensitivity"]()
    flat = rows(kind, -2.0)
    assert kind.verdict(deltas(flat | {"layer_lr=0.009": -20.0})).outcome == "refuted"
    assert kind.verdict(deltas(flat | {"layer_lr=0.03": -20.0})).outcome == "confirmed"


@pytest.mark.parametrize("few, outcome", [(-3.0, "confirmed"), (-14.0, "refuted")])
def test_a_few_images_reach_most_of_the_gain_or_not(few, outcome):
    kind = STUDIES["unlabelled_images"]()
    means = rows(kind, -2.0) | {"task arithmetic": -20.0, "64 images": few}
    assert kind.verdict(deltas(means)).outcome == outcome


def test_counts_that_the_claim_is_about_must_be_run():
    with pytest.raises(ValueError, match=r"few=3 .* must be among counts"):
        STUDIES["unlabelled_images"](few=3)


@pytest.mark.parametrize("other, outcome", [(-8.0, "refuted"), (-3.05, "inconclusive")])
def test_the_experts_teach_best_or_nobody_knows(other, outcome):
    kind = STUDIES["teachers"]()
    assert kind.verdict(deltas(rows(kind, -3.0, other), spread=0.3)).outcome == outcome


def test_one_better_teacher_confirms():
    kind = STUDIES["teachers"]()
    verdict = kind.verdict(deltas(rows(kind, -3.0, -8.0) | {"experts and average": 0.0}))
    assert verdict.outcome == "confirmed" and "experts and average" in verdict.reason


@pytest.mark.parametrize("worst, outcome", [(-3.0, "confirmed"), (-9.0, "refuted")])
def test_layers_matter_by_the_distance_of_best_and_worst(worst, outcome):
    kind = STUDIES["layers"]()
    means = rows(kind, -2.5) | {"final": worst, "head": -30.0, "none: coefficients only": -40.0}
    assert kind.verdict(deltas(means, spread=0.05)).outcome == outcome, "rows of several layers do not count"


@pytest.mark.parametrize("lost, outcome", [(-30.0, "confirmed"), (-3.0, "refuted")])
def test_scaling_compares_what_is_lost_on_the_way(lost, outcome):
    kind = STUDIES["scaling"](counts=[2, 3])
    ends = {"2": {"symerge": -2.0, "ties": -20.0}, "3": {"symerge": -5.0, "ties": -20.0 + lost + 3.0}}
    means = {}
    for run in kind.grid(["segmentation", "depth", "normals"]):
        named = run["method"] if run["method"] in ("symerge", "ties") else "other"
        means[run["label"]] = {**ends[str(run["count"])], "other": -40.0 * run["count"]}[named]
    verdict = kind.verdict(deltas(means))
    assert verdict.outcome == outcome and "From 2 to 3 tasks" in verdict.reason


def test_more_tasks_than_there_are_cannot_be_merged():
    with pytest.raises(ValueError, match="the config has 2 tasks"):
        STUDIES["scaling"]().grid(["segmentation", "depth"])
    for wrong in ("3 8", [], [3, "8"], 0):
        with pytest.raises(ValueError, match="numbers of tasks"):
            STUDIES["scaling"](counts=wrong)


@pytest.mark.parametrize("gain, outcome", [(4.0, "confirmed"), (-4.0, "refuted")])
def test_a_layer_across_tasks_must_gain_for_most_pairs(gain, outcome):
    kind = STUDIES["cross_task_layer"]()
    pairs = [run["label"] for run in kind.grid(["segmentation", "depth", "normals"])]
    numbers = {label: {CROSS_GAIN: [gain + 0.2 * (seed - 1) for seed in range(SEEDS)]} for label in pairs}
    assert len(pairs) == 6 and kind.verdict(planted(numbers)).outcome == outcome


@pytest.mark.parametrize("gain, outcome", [(3.0, "confirmed"), (-3.0, "refuted"), (0.0, "inconclusive")])
def test_transfer_is_a_gain_of_most_methods(gain, outcome):
    kind = STUDIES["transfer"]()
    numbers = {name: {GAIN: [gain + 0.3 * (seed - 1) for seed in range(SEEDS)]} for name in kind.methods}
    assert kind.verdict(planted(numbers)).outcome == outcome


@pytest.mark.parametrize("broken, outcome", [(-6.0, "confirmed"), (-15.0, "refuted")])
def test_worse_experts_must_leave_the_gain(broken, outcome):
    kind = STUDIES["worse_experts"]()
    means = {label: -3.0 if label.startswith("symerge") else -10.0 for label in rows(kind, 0.0)}
    assert kind.verdict(deltas(means | {"symerge, one broken expert": broken})).outcome == outcome


@pytest.mark.parametrize("free, outcome", [(-20.0, "confirmed"), (-1.0, "refuted")])
def test_under_every_corruption_training_free_merging_must_be_worse(free, outcome):
    kind = STUDIES["corruptions"]()
    means = {label: -3.0 if label.startswith(("symerge", "experts")) else -20.0 for label in rows(kind, 0.0)}
    assert kind.verdict(deltas(means | {"ties, jpeg 5": free})).outcome == outcome
    assert kind.verdict(deltas(means | {"ties, clean": 9.0})).outcome == "confirmed", "clean images are not judged"


@pytest.mark.parametrize(
    "cosine, slack, outcome", [(0.97, 0.2, "confirmed"), (0.5, 0.2, "refuted"), (0.97, -0.2, "refuted")]
)
def test_linearity_needs_the_cosine_and_the_bound_of_every_task(cosine, slack, outcome):
    shift = [0.001 * seed for seed in range(SEEDS)]
    numbers = {
        "cosine, level 0": [0.2] * SEEDS,
        "cosine, level 1": [cosine + s for s in shift],
        **{f"merged loss, {task}": [1.0 + s for s in shift] for task in ("depth", "normals")},
        "cross-task loss, depth": [1.5] * SEEDS,
        "cross-task loss, normals": [1.0 + slack] * SEEDS,
    }
    assert Linearity().verdict(planted({"average": numbers})).outcome == outcome


@pytest.mark.parametrize(
    "changed, outcome",
    [({}, "confirmed"), ({"task_arithmetic, vit_tiny": 0.0}, "refuted"), ({"symerge, swin, narrow": -19.0}, "refuted")],
)
def test_one_architecture_without_the_gain_or_far_below_the_first_refutes(changed, outcome):
    kind = STUDIES["architectures"]()
    means = {label: -4.0 if label.startswith("symerge") else -20.0 for label in rows(kind, 0.0)}
    verdict = kind.verdict(deltas(means | changed))
    assert verdict.outcome == outcome and len(verdict.findings) == 11
    assert not changed or next(iter(changed)).split(", ", 1)[1] in verdict.reason


@pytest.mark.parametrize(
    "changed, outcome",
    [
        ({}, "confirmed"),
        ({"task_arithmetic, dim light": 0.0}, "refuted"),
        ({"symerge, jigsaw images": -25.0}, "refuted"),
        ({"symerge, dim light, adapted on clean images": 9.0}, "confirmed"),
    ],
)
def test_one_shift_or_pool_where_training_free_merging_wins_refutes(changed, outcome):
    kind = STUDIES["shifts"]()
    means = {label: -4.0 if label.startswith("symerge") else -20.0 for label in rows(kind, 0.0)}
    verdict = kind.verdict(deltas(means | {"symerge, clean": -1.0} | changed))
    assert verdict.outcome == outcome
    assert verdict.findings["cost of the pool, long tail"].mean == pytest.approx(3.0, abs=0.2)
    assert "adapted there - on clean images, low camera" in verdict.findings


START = {
    "coefficients alone collapse": ({"symerge_coefficients, own bases": -19.0}, "refuted"),
    "SyMerge still merges": ({"symerge, own bases": -45.0}, "refuted"),
    "matching restores": ({"task_arithmetic, own bases, matched": -49.0}, "refuted"),
    "all": ({}, "confirmed"),
}


@pytest.mark.parametrize("part", START)
def test_first_weights_break_coefficients_not_symerge_and_matching_restores(part):
    changed, outcome = START[part]
    kind, lost = STUDIES["initialisations"](), {"own bases": -40.0, "own bases, matched": -12.0}
    means = {label: -10.0 + lost.get(label.split(", ", 1)[1], 0.0) for label in rows(kind, 0.0)}
    means |= {"symerge, one base": -2.0, "symerge, own bases": -5.0, "symerge, own bases, matched": -3.0}
    verdict = kind.verdict(deltas(means | changed))
    assert verdict.outcome == outcome
    told = [f"{name} ({'refuted' if name == part else 'confirmed'})" for name in list(START)[:3]]
    assert all(text in verdict.reason for text in told), verdict.reason


@pytest.mark.parametrize("name", sorted(set(STUDIES) - OWN_NUMBERS))
def test_a_single_seed_decides_nothing(name):
    kind = STUDIES[name]()
    assert kind.verdict(deltas(rows(kind, -1.0, -30.0), seeds=1)).outcome == "inconclusive"
