"""The files of given experts against the config, each other and the base: found before anything is read or trained."""

import dataclasses

import pytest
import torch
from builders import tiny
from builders.photos import write_photos
from builders.pipeline_tiny import write_config
from safetensors.torch import save_file

from symerge_dense.models.checkpoint import read_metadata, save_model, state_hash
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import config_of, load_config
from symerge_dense.pipeline.expert_facts import check_given_experts, read_facts
from symerge_dense.pipeline.expert_store import ExpertStore
from symerge_dense.pipeline.train import train
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.segmentation import Segmentation

WIDE = {**tiny.CNN, "channels": (8, 16, 24, 40)}


def write_expert(path, task, spec=tiny.CNN, width=8, **preprocessing):
    """An untrained expert of a task, from the tiny base of its architecture."""
    base = tiny.backbone(spec)
    heads, origin = {task.name: {"type": MultiScale, "width": width}}, state_hash(base.state_dict())
    model = MultiTaskModel(base, heads, {task.name: task}, **{**tiny.PREPROCESSING, **preprocessing})
    save_model(path, model, {"base_hash": origin})
    return str(path)


def values(folder, **more):
    """A short config of two experts and a folder of photos; the base and photos are there."""
    base = tiny.backbone()
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, folder / "base.safetensors")
    write_photos(folder / "photos", 10, size=tiny.SIZE)
    named = {"segmentation": Segmentation(classes=4), "depth": Depth()}
    paths = {task: write_expert(folder / f"{task}.safetensors", rule) for task, rule in named.items()}
    return {
        "experts": {"checkpoints": paths},
        "base": {"checkpoint": str(folder / "base.safetensors")},
        "data": {"unlabelled": {"type": "ImageFolder", "root": str(folder / "photos")}},
        **more,
    }


def long(folder, **more):
    """The same with everything that the files say."""
    facts = {
        "tasks": {"segmentation": {"type": "segmentation", "classes": 4}, "depth": {"type": "depth"}},
        "backbone": dict(tiny.CNN),
        "head": {"type": "MultiScale", "width": 8},
        "preprocessing": dict(tiny.PREPROCESSING),
    }
    return {**values(folder), **facts, **more}


def refusal(given, name="mine"):
    with pytest.raises(ValueError) as found:
        check_given_experts(config_of(name, given))
    return str(found.value)


def test_a_short_config_and_a_long_one_are_the_same(tmp_path, capsys):
    short, full = config_of("mine", values(tmp_path)), config_of("mine", long(tmp_path))
    assert short.head_of("depth") == full.head_of("depth") and list(short.tasks) == ["segmentation", "depth"]
    assert short.tasks["segmentation"]["classes"] == 4 and short.preprocessing["std"] == list(full.preprocessing["std"])
    capsys.readouterr()
    assert set(check_given_experts(full)) == {"segmentation", "depth"}
    assert capsys.readouterr().out == ""


def test_forty_classes_under_a_task_of_thirteen_are_refused(tmp_path):
    given = long(tmp_path, tasks={"segmentation": {"type": "segmentation", "classes": 13}, "depth": {"type": "depth"}})
    path = write_expert(tmp_path / "segmentation.safetensors", Segmentation(classes=40))
    text = refusal(given)
    assert f"expert {path} has 40 classes" in text and "the config's task segmentation has 13" in text
    assert "classes=40" in text and "write tasks.segmentation as the expert has it" in text


def test_other_arguments_of_a_task_are_the_experts_with_a_sentence(tmp_path, capsys):
    names = {"type": "segmentation", "classes": 4, "class_names": ["a", "b", "c", "d"]}
    given = long(tmp_path, tasks={"segmentation": names, "depth": {"type": "depth", "max_median": 300.0}})
    check_given_experts(config_of("mine", given))
    text = " ".join(capsys.readouterr().out.split())
    assert "note: class_names of task segmentation is ['class 0', 'class 1', 'class 2', 'class 3'] in" in text
    assert "note: max_median of task depth is 100.0 in" in text and "and 300.0 in the config" in text


def test_classes_are_compared_in_a_whole_run_too(tmp_path):
    """With experts to train beside it: nothing is trained."""
    path = write_expert(tmp_path / "seg40.safetensors", Segmentation(classes=40))
    config = load_config(write_config(tmp_path), {"experts.checkpoints.segmentation": path})
    with pytest.raises(ValueError, match=r"has 40 classes.*has 13"):
        train(config, work_dir=str(tmp_path / "run"))
    assert not (tmp_path / "experts").exists() and not (tmp_path / "run").exists()


def test_another_backbone_is_refused(tmp_path):
    text = refusal(long(tmp_path, backbone=WIDE))
    assert "differ in backbone" in text and "24, 32" in text and "24, 40" in text


def test_experts_of_two_architectures_are_refused(tmp_path):
    given = values(tmp_path)
    write_expert(tmp_path / "depth.safetensors", Depth(), spec=WIDE)
    text = refusal(given)
    assert "segmentation.safetensors" in text and "depth.safetensors" in text and "differ in backbone" in text


def test_experts_that_see_images_differently_are_refused(tmp_path):
    given = values(tmp_path)
    write_expert(tmp_path / "depth.safetensors", Depth(), mean=(0.0, 0.0, 0.0))
    assert "differ in preprocessing" in refusal(given)


def test_the_experts_preprocessing_wins_with_a_sentence(tmp_path, capsys):
    other = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
    check_given_experts(config_of("mine", long(tmp_path, preprocessing=other)))
    text = " ".join(capsys.readouterr().out.split())
    assert "note: preprocessing is the experts'" in text and "127.0" in text and "not the config's" in text


def test_preprocessing_that_others_would_be_trained_by_is_refused(tmp_path):
    path = write_expert(tmp_path / "depth.safetensors", Depth(), mean=(0.0, 0.0, 0.0))
    config = load_config(write_config(tmp_path), {"experts.checkpoints.depth": path})
    with pytest.raises(ValueError, match=r"by which segmentation, normals would be trained"):
        check_given_experts(config)


def test_the_experts_head_wins_with_a_sentence(tmp_path, capsys):
    check_given_experts(config_of("mine", long(tmp_path, head={"type": "MultiScale", "width": 16})))
    text = " ".join(capsys.readouterr().out.split())
    assert (
        text.count("note: the head of") == 2 and "width=8), not the config's dict(type='MultiScale', width=16)" in text
    )


def test_two_bases_are_refused_and_may_be_allowed(tmp_path):
    given = values(tmp_path)
    model = MultiTaskModel(
        tiny.backbone(seed=5), {"depth": {"type": MultiScale, "width": 8}}, {"depth": Depth()}, **tiny.PREPROCESSING
    )
    save_model(tmp_path / "depth.safetensors", model, {"base_hash": "e" * 64})
    assert "do not share their base weights" in refusal(given) and "experts.other_base=True" in refusal(given)
    given["experts"]["other_base"] = True
    check_given_experts(config_of("mine", given))


def test_a_given_expert_of_another_base_is_found_before_the_others_are_trained(tmp_path):
    path = write_expert(tmp_path / "depth.safetensors", Depth())
    more = "base = dict(random_init=True)\nexperts = dict(seed=3, **experts)\n"
    config = load_config(write_config(tmp_path, more=more), {"experts.checkpoints.depth": path})
    with pytest.raises(ValueError, match="do not share their base weights"):
        train(config, work_dir=str(tmp_path / "run"))
    assert not (tmp_path / "experts").exists()


def test_a_missing_section_says_what_could_stand_for_it(tmp_path):
    given = values(tmp_path)
    del given["base"]
    with pytest.raises(ValueError, match=r"has no 'base'; name what the experts were fine-tuned from"):
        config_of("mine", given)
    with pytest.raises(ValueError, match=r"has no 'tasks'; .* experts\.checkpoints"):
        config_of("mine", {**given, "experts": {}})
    with pytest.raises(ValueError, match=r"data has no 'train' for the experts of depth"):
        tasks = {"segmentation": {"type": "segmentation", "classes": 4}, "depth": {"type": "depth"}}
        one = {"recipe": {}, "checkpoints": {"segmentation": given["experts"]["checkpoints"]["segmentation"]}}
        config_of("mine", {**long(tmp_path), "tasks": tasks, "experts": one})
    with pytest.raises(ValueError, match=r"data has no 'train' for the base"):
        recipe = {"tasks": {"depth": {"type": "depth"}}, "recipe": {"epochs": 1}}
        config_of("mine", {**values(tmp_path), "base": {"train": recipe}})


def test_a_file_that_is_no_expert_is_named(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors is not a model file"):
        read_facts(tmp_path / "other.safetensors", "depth")


def test_trained_experts_say_the_size_of_their_images(tmp_path):
    config = load_config(write_config(tmp_path), {"experts.recipe.num_workers": 0})
    config = dataclasses.replace(config, tasks={"depth": config.tasks["depth"]})
    store = ExpertStore(config)
    expert = store.experts(store.base())
    assert list(expert) == ["depth"] and read_metadata(store.paths["depth"])["image_size"] == [32, 48]
    fewer = dataclasses.replace(config, experts={**config.experts, "recipe": {"epochs": 1, "batch_size": 4}})
    again = ExpertStore(fewer, allowed=False)
    again.experts(again.base())
    assert again.paths == store.paths  # the number of data workers is not in the name
