"""The merge of text encoders: the language, its labels, the rule, and a study from nothing at its smallest."""

import copy
import json

import pytest
import torch
from builders.studies import deltas
from safetensors.torch import save

from symerge_dense.adaptation.options import make_options
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.execution import run_study
from symerge_dense.studies.frame.plan import load_plan
from symerge_dense.studies.language.encoder import TextEncoder
from symerge_dense.studies.language.merged import Expert, adapt
from symerge_dense.studies.language.sentences import LENGTH, NOUNS, PADDING, TASKS, VOCABULARY, sentences
from symerge_dense.studies.text import MERGES, PARTS

TINY = {
    "study.seeds": 1,
    "study.tasks": ["subject", "tense"],
    "study.merges": ["average", "task_arithmetic"],
    "study.parts": ["symerge_layer"],
    "sentences": {"train": 60, "unlabelled": 40, "test": 40},
    "encoder": {"width": 8, "depth": 2, "heads": 2},
    "base": {"steps": 2, "batch_size": 8},
    "experts": {"steps": 12, "batch_size": 8, "lr": 1e-2},
    "adaptation": {"rounds": 4, "batch_size": 8, "layer_lr": 0.3},
    "baselines": {"scales": [0.3]},
}
WORDS = {number: word for word, number in VOCABULARY.items()}


# -- the language -----------------------------------------------------------------------------------------------------
def test_labels_say_what_the_words_say():
    """The rules once more, from the words alone."""
    words, labels = sentences(200, 0)
    again, every = sentences(200, 0), [noun for nouns in NOUNS.values() for noun in nouns]
    assert torch.equal(words, again.words) and words.shape == (200, LENGTH) and set(labels) == set(TASKS)
    for row in range(200):
        said = [WORDS[number] for number in words[row].tolist() if number != PADDING]
        meant = {task: TASKS[task][labels[task][row]] for task in TASKS}
        assert (meant["tense"] == "past") == bool({"was", "were"} & set(said))
        assert (meant["tense"] == "future") == ("to" in said)
        assert (meant["voice"] == "passive") == ("by" in said)
        first = next(word for word in said if word in every or word[:-1] in every)
        assert (meant["number"] == "many") == (first not in every) == bool({"are", "were"} & set(said))
        first, last = ({word, word[:-1]} for word in (first, said[-1]))
        subject, other = (next(kind for kind, nouns in NOUNS.items() if found & set(nouns)) for found in (first, last))
        assert meant["subject"] == subject and meant["agent"] == (other if "by" in said else subject)
    assert all(len(set(found.tolist())) == len(TASKS[task]) for task, found in labels.items())


def test_words_behind_the_end_change_nothing():
    encoder = TextEncoder(8, 2, 2).eval()
    words = sentences(4, 0).words
    features = encoder(words)
    encoder.positions.weight.data[-1] += 100  # where no sentence of these has a word
    assert (words[:, -1] == PADDING).all() and torch.equal(encoder(words), features)


# -- the merge --------------------------------------------------------------------------------------------------------
def test_one_expert_is_found_again_by_its_own_labels():
    """Any module merges: two plain layers, one expert; coefficients of 1 give it back, and its labels lead there."""
    torch.manual_seed(0)
    base, encoder, head = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
    inputs = torch.randn(64, 5)
    options = {"initial": 0.0, "learn_layer": False, "coefficient_lr": 0.1, "rounds": 60, "batch_size": 64}

    def apart(found):
        with torch.no_grad():
            return float((found.head(found.encoder(inputs)) - head(encoder(inputs))).abs().mean())

    learned = adapt(base, {"any": Expert(encoder, head)}, inputs, make_options(**options), seed=0)["any"]
    start = adapt(base, {"any": Expert(encoder, head)}, inputs, make_options(**options | {"rounds": 1}), seed=0)["any"]
    assert apart(learned) < 0.5 * apart(start)
    assert all(torch.equal(*pair) for pair in zip(learned.head.parameters(), head.parameters(), strict=True))


# -- the study --------------------------------------------------------------------------------------------------------
def tiny(**changes):
    return load_plan("text", overrides=copy.deepcopy({**TINY, **changes}))


def test_a_study_on_text_runs_from_nothing_and_resumes_to_the_same(tmp_path):
    whole = run_study(tiny(), str(tmp_path / "whole"), cache=str(tmp_path / "cache"))
    assert set(whole["rows"]) == {"experts", "symerge", "symerge_layer", "average", "task_arithmetic"}
    assert whole["rows"]["experts"]["delta_m"]["mean"] == 0 and len(whole["verdict"]["findings"]) == 3
    assert whole["rows"]["symerge"]["delta_m"] != whole["rows"]["average"]["delta_m"]
    assert json.loads((tmp_path / "whole" / "costs.json").read_text())["runs"][1]["method_seconds"] > 0
    for path in sorted((tmp_path / "cache" / "runs").iterdir())[:3]:
        path.unlink()  # these runs are made again, with experts that are read from their files
    run_study(tiny(), str(tmp_path / "whole"), resume=True, cache=str(tmp_path / "cache"))
    assert json.loads((tmp_path / "whole" / "study.json").read_text())["rows"] == whole["rows"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"study.tasks": ["tence"]}, "Did you mean 'tense'"),
        ({"sentences": {"train": 3, "unlabelled": 0, "test": 3}}, "unlabelled=0: give a whole number"),
        ({"encoder": {"width": 7, "heads": 2}}, "width=7 must be a multiple of heads=2"),
        ({"sentences.trian": 3}, "Did you mean 'train'"),
        ({"encoder": {"width": "wide"}}, "width='wide': give a whole number"),
        ({"base": {"lr": "fast"}}, "must be a value of type float"),
        ({"tasks": {"tense": {"weight": 2}}}, "tasks on sentences have no options"),
        ({"base": {"step": 3}}, "Did you mean 'steps'"),
        ({"experts": {"lr": 0}}, "lr=0 must be positive"),
        ({"adaptation": {"views": None}}, "unknown option of the adaptation on sentences 'views'"),
        ({"backbone": {"name": "resnet18"}}, "unknown key 'backbone'"),
        ({"study.merges": ["tise"]}, "Did you mean 'ties'"),
        ({"study.merges": ["regmean"]}, "needs statistics of images"),
        ({"study.parts": ["surgery"]}, "adapts models of images"),
        ({"study.parts": ["head_distillation"]}, "on sentences 'layer'"),
        ({"baselines": {"scales": []}}, r"give scales=\[...\]"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_study(tiny(**changes), str(tmp_path / "out"), cache=str(tmp_path / "cache"))
    assert not list(tmp_path.iterdir())


def test_a_damaged_expert_is_named_and_trained_again(tmp_path, capsys):
    plan = tiny()
    laboratory = plan.laboratory(plan.runs()[0], RunCache(tmp_path))
    laboratory.train()
    path = next(tmp_path.glob("experts/text-tense-*.safetensors"))
    whole = path.read_bytes()
    for damaged in (whole[:50], b"", whole[:-1] + bytes([whole[-1] ^ 8]), save({"encoder.weight": torch.ones(2)})):
        path.write_bytes(damaged)
        plan.laboratory(plan.runs()[0], RunCache(tmp_path)).train()
        assert f"{path} is damaged (" in capsys.readouterr().out and path.read_bytes() == whole


@pytest.mark.parametrize("weakest, outcome", [(-9.0, "confirmed"), (-1.0, "refuted"), (-3.0, "inconclusive")])
def test_symerge_must_beat_every_row(weakest, outcome):
    means = {"experts": 0.0, "symerge": -3.0, **dict.fromkeys([*MERGES, *PARTS], -20.0)}
    assert STUDIES["text"]().verdict(deltas(means | {"ties": weakest})).outcome == outcome
