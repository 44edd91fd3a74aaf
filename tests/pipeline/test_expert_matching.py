"""Experts of different first weights in a run: matched once, kept in files, and merged about their mean."""

from types import SimpleNamespace

import pytest
import torch
from builders import tiny
from builders.pipeline_tiny import write_config

from symerge_dense.models.checkpoint import load_model, read_metadata, save_model, state_hash
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data import pool
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.train import train
from symerge_dense.report.agreement import read_record

TWO = "tasks = dict(depth=dict(type=Depth), normals=dict(type=Normals))\n"
MATCH = {"experts.match.type": "activations", "experts.match.images": 5}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A config of two experts, each from first weights of its own."""
    folder, files = tmp_path_factory.mktemp("lab"), {}
    for seed, task in enumerate(("depth", "normals")):
        base = tiny.backbone(seed=seed)
        files[task] = folder / f"{task}.safetensors"
        save_model(files[task], tiny.expert(task, base, seed), {"base_hash": state_hash(base.state_dict())})
    path = write_config(folder, more=TWO)
    given = {f"experts.checkpoints.{task}": str(file) for task, file in files.items()}
    return SimpleNamespace(folder=folder, files=files, config=path, given={**given, "base.mean": True})


def models(lab, tmp_path, **changes):
    config = load_config(lab.config, {**lab.given, "experts.folder": str(tmp_path), **changes})
    store = ExpertStore(config)
    return store, *store.models(pool(config), CPU)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_run_merges_matched_experts(lab, tmp_path, capsys):
    config = load_config(lab.config, {**lab.given, **MATCH, "experts.folder": str(tmp_path / "kept")})
    results = train(config, work_dir=str(tmp_path / "run"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "units moved to match expert depth, similarity 0." in printed
    rows = [results[row]["tasks"]["depth"]["abs"]["value"] for row in ("average", "task_arithmetic", "initial")]
    assert rows[1:] == [pytest.approx(rows[0])] * 2  # about the mean, any scale gives the mean
    written = (tmp_path / "run" / "adaptation.py").read_text()
    assert "normals-matched-" in written and str(lab.files["depth"]) in written
    assert read_record(tmp_path / "run" / "results.json")["config"]["experts"]["match"]["images"] == 5
    assert len(list((tmp_path / "kept").glob("*-matched-*"))) == 1


def test_matched_experts_are_kept_by_what_they_depend_on(lab, tmp_path):
    first, base, experts = models(lab, tmp_path, **MATCH)
    kept = first.paths["normals"]
    assert first.paths["depth"] == lab.files["depth"] and kept.parent == tmp_path
    written = kept.stat().st_mtime_ns
    second, again, others = models(lab, tmp_path, **MATCH)
    assert second.paths == first.paths and kept.stat().st_mtime_ns == written
    assert same(base, again) and all(same(experts[task], others[task]) for task in experts)
    elsewhere, _, found = models(lab, tmp_path / "elsewhere", **MATCH)
    assert elsewhere.paths["normals"].name == kept.name and same(found["normals"], experts["normals"])
    more, _, _ = models(lab, tmp_path, **{**MATCH, "experts.match.images": 6})
    fewer, _, _ = models(lab, tmp_path, **MATCH, **{"data.unlabelled.limit": 5})
    assert len({kept, more.paths["normals"], fewer.paths["normals"]}) == 3


def test_the_base_is_the_mean_of_the_matched_experts(lab, tmp_path):
    store, base, experts = models(lab, tmp_path, **MATCH)
    for name, value in base.state_dict().items():
        parts = [expert.backbone.state_dict()[name] for expert in experts.values()]
        wanted = sum(parts) / 2 if value.is_floating_point() else parts[0]
        torch.testing.assert_close(value, wanted)
    about = read_metadata(store.paths["normals"])
    assert about["base_hash"] is None and store.files(base)["other_base"] is True
    assert about["matched"]["to"] == "expert depth" and about["matched"]["file"] == str(lab.files["normals"])
    assert about["matched"]["similarity"] < about["matched"]["similarity_matched"]


def test_experts_are_matched_to_a_base_that_is_given(lab, tmp_path):
    given = {**MATCH, "base.mean": False, "base.random_init": True}
    store, base, experts = models(lab, tmp_path, **given)
    assert all("-matched-" in path.name for path in store.paths.values())
    origin = state_hash(base.state_dict())
    assert {read_metadata(path)["base_hash"] for path in store.paths.values()} == {origin}
    assert store.files(base)["other_base"] is False
    image = torch.rand(2, 3, *tiny.SIZE) * 255
    for task, file in lab.files.items():
        with torch.no_grad():
            ours, theirs = experts[task](image)[task], load_model(file)[0](image)[task]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_without_matching_experts_are_as_in_their_files(lab, tmp_path):
    store, base, experts = models(lab, tmp_path)
    assert store.paths == lab.files and not list(tmp_path.glob("*-matched-*"))
    assert all(same(experts[task], load_model(file)[0]) for task, file in lab.files.items())
    other = {"base.mean": False, "base.random_init": True, "experts.other_base": True}
    plain, found, _ = models(lab, tmp_path, **other)
    assert same(found, plain.base()) and not same(found, base)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"experts.match": "activations"}, r"experts\.match is 'activations'; it must be a dict .* type, images"),
        ({"experts.match.kind": "weights"}, r"experts\.match: unknown key 'kind'"),
        ({"base.mean": "abc"}, r"base\.mean='abc' must be True or False"),
        (
            {"base.checkpoint": "base.pth"},
            r"base\.mean=True and base\.checkpoint='base\.pth' are two bases.*base\.checkpoint=None",
        ),
        ({"experts.match.type": "weights"}, r"unknown kind of matching 'weights'"),
        ({"experts.match.images": 2.5}, r"experts\.match\.images=2\.5 must be a value of type int"),
    ],
)
def test_wrong_options_are_refused(lab, changes, wanted):
    with pytest.raises(ValueError, match=wanted):
        load_config(lab.config, {**lab.given, **changes})


def test_a_mean_needs_files_of_two_experts(lab):
    one = {"depth": {"type": "depth"}, "_delete_": True}
    depth = {"experts.checkpoints.depth": str(lab.files["depth"]), "base.mean": True}
    with pytest.raises(ValueError, match=r"base\.mean=True .* experts\.checkpoints for normals, or give another base"):
        load_config(lab.config, depth)
    with pytest.raises(ValueError, match=r"base\.mean=True .* experts\.checkpoints for a second task"):
        load_config(lab.config, {**depth, "tasks": one})


def test_experts_of_two_bases_are_told_of_matching(lab, tmp_path):
    config = load_config(lab.config, {**lab.given, "base.mean": False, "base.random_init": True})
    with pytest.raises(ValueError, match=r"do not share .* experts\.match=dict\(type='activations'\)"):
        train(config, work_dir=str(tmp_path / "run"))
