"""A study's config: what is wrong with it, or with its grid, is said before anything is trained."""

import pytest
from builders.studies import STUDY, write_study_config

from symerge_dense.pipeline.config_files import shipped_studies
from symerge_dense.registry import STUDIES
from symerge_dense.studies.frame.cache import RunCache
from symerge_dense.studies.frame.laboratory import Laboratory
from symerge_dense.studies.frame.plan import load_plan
from symerge_dense.studies.frame.study import distinct


@pytest.fixture
def cache(tmp_path):
    return RunCache(tmp_path / "cache")


def planned(folder, study=STUDY, **how):
    return load_plan(str(write_study_config(folder, study=study)), **how)


def test_every_study_has_a_shipped_config_that_the_frame_resolves(cache):
    kinds = {load_plan(name).study.name for name in shipped_studies()}
    assert kinds == set(STUDIES)


@pytest.mark.parametrize("name", shipped_studies())
@pytest.mark.parametrize("quick", [False, True])
def test_a_shipped_study_says_what_it_is_and_every_run_resolves(name, quick, cache):
    plan = load_plan(name, quick)
    study, runs = plan.study, plan.runs()
    for what in (study.title, study.claim, study.question, study.rule, study.would_change, plan.cost):
        assert len(what) > 10
    assert plan.seeds >= 2 and {run["seed"] for run in runs} == set(range(plan.seeds))
    seen = set()
    for run in runs:
        kind = str({key: run.get(key) for key in ("method", "options", "config")})
        if kind not in seen:
            seen.add(kind)
            laboratory = plan.laboratory(run, cache)
            assert laboratory.tasks and laboratory.config.seed == 0
            if isinstance(laboratory, Laboratory):
                experts = laboratory.config.experts
                assert experts["folder"] == str(cache.experts) and experts["seed"] == 0
    assert len({run["label"] for run in runs}) * plan.seeds == len(runs)


def test_seeds_quick_and_options_replace_values_in_this_order(tmp_path):
    assert planned(tmp_path).seeds == 1 and list(planned(tmp_path).config.tasks) == ["segmentation", "depth"]
    quick = planned(tmp_path, quick=True)
    assert (quick.seeds, quick.config.options.rounds) == (2, 2)
    last = planned(tmp_path, quick=True, seeds=5, overrides={"adaptation.rounds": 3})
    assert (last.seeds, last.config.options.rounds) == (5, 3)


def test_an_unknown_study_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"unknown study 'part'\. Did you mean 'parts'"):
        load_plan("part")


@pytest.mark.parametrize(
    "study, message",
    [
        ('study = dict(type="prats")', "Did you mean 'parts'"),
        ('study = dict(type="parts", margn=1.0)', "parts takes initial, margin, options"),
        ('study = dict(type="parts", tasks=["dept"])', "Did you mean 'depth'"),
        ("study = 3", "names no study"),
        ('study = dict(type="parts", seeds=0)', "give at least 1"),
        ('study = dict(type="parts")\nadaptation["round"] = 3', "Did you mean 'rounds'"),
    ],
)
def test_a_wrong_config_names_value_and_remedy(tmp_path, study, message):
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, study)


@pytest.mark.parametrize(
    "run, message",
    [
        ({"method": "symmerge"}, "Did you mean 'symerge'"),
        ({"method": "symerge", "options": {"layr": "final"}}, "Did you mean 'layer'"),
        ({"method": "symerge", "config": {"adaptation.layer_rl": 1}}, "Did you mean 'layer_lr'"),
        ({"method": "symerge", "config": {"adaptation.initial": 0.5, "adaptation.rounds": 0}}, "rounds=0"),
        ({"method": "symerge", "options": {"layer_lr": -1.0}}, "layer_lr=-1.0"),
        ({"method": "symerge", "options": {"teacher": "expert"}}, "Did you mean 'experts'"),
        ({"method": "symerge", "config": {"optimiser.lr": 1}}, "unknown"),
        ({"method": "symerge", "tasks": ["depht"]}, "Did you mean 'depth'"),
    ],
)
def test_a_grid_value_that_the_config_does_not_know_names_the_run(tmp_path, cache, run, message):
    plan = planned(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        plan.laboratory({"label": "a row", "seed": 0, **run}, cache)
    assert "tiny_study" in str(caught.value) and "a row" in str(caught.value)


def test_a_run_with_an_unknown_key_or_a_label_that_means_two_things_is_refused(tmp_path, monkeypatch):
    plan = planned(tmp_path)
    monkeypatch.setattr(plan.study, "grid", lambda tasks: [{"label": "a", "metod": "symerge"}])
    with pytest.raises(ValueError, match="Did you mean 'method'"):
        plan.runs()
    with pytest.raises(ValueError, match="a label of its own"):
        distinct([{"label": "a", "method": "ties"}, {"label": "a", "method": "average"}])
    assert len(distinct([{"label": "a"}, {"label": "a"}])) == 1


def test_equal_options_written_in_two_ways_are_one_result(tmp_path, cache):
    plan = planned(tmp_path)
    hashes = {"base": "0", "expert segmentation": "1", "expert depth": "2"}

    def file(**run):
        run = {"label": "any", "seed": 0, "method": "symerge", **run}
        return cache.file("method", plan.laboratory(run, cache).asked(run, hashes))

    same = file(options={"rounds": 7})
    assert same == file(config={"adaptation.rounds": 7}) == file(options={"rounds": 7}, label="another")
    assert same == file(options={"rounds": 7, "save_every": 3})
    others = [file(), file(options={"rounds": 8}), file(method="symerge_layer", options={"rounds": 7})]
    others += [file(options={"rounds": 7}, seed=1), file(options={"rounds": 7}, tasks=["depth", "segmentation"])]
    assert len({same, *others}) == 6
