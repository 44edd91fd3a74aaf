"""Where base and experts come from: what a seed fixes."""

from pathlib import Path

import torch
from builders.pipeline_tiny import TASKS, write_config

from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model, state_hash
from symerge_dense.pipeline.config import config_hash, load_config
from symerge_dense.pipeline.expert_store import ExpertStore


def test_a_random_base_is_the_same_in_every_run_of_a_seed(tmp_path):
    def base(seed):
        torch.randn(7)  # whatever ran before
        config = load_config(write_config(tmp_path), ["base.random_init=True", f"experts.seed={seed}"])
        return state_hash(ExpertStore(config).base().state_dict())

    assert base(0) == base(0) != base(1)


def test_the_base_that_is_kept_is_the_one_the_experts_start_from(tmp_path):
    """Two sources in one config: both readers of it must choose the same."""
    store = ExpertStore(load_config(write_config(tmp_path), ["base.random_init=True"]))
    base = store.base()
    store.experts(base)
    kept, origin = store.files(base)["base"], state_hash(base.state_dict())
    again = TimmBackbone(**store.config.backbone)
    load_base(again, checkpoint=kept)
    assert state_hash(again.state_dict()) == origin
    assert {read_metadata(path)["base_hash"] for path in store.paths.values()} == {origin}
    assert [path.name for path in store.folder.glob("base-*")] == [Path(kept).name]


def test_an_expert_that_was_filed_by_names_is_found(tmp_path):
    """Earlier versions hashed a task's type as it was written, and a name is no class."""
    config = load_config(write_config(tmp_path), {"tasks": {"depth": {"type": "depth", "_delete_": True}}})
    store = ExpertStore(config)
    base = store.base()
    origin = state_hash(base.state_dict())
    now = store._trained_expert("depth", base, origin)
    recipe = config.experts["recipe"]
    key = config_hash(store._common(), {"type": "depth"}, {"type": "MultiScale", "width": 8}, recipe, origin, 0)
    before = now.rename(now.with_name(f"depth-{key}.safetensors"))
    assert before != now and ExpertStore(config, allowed=False)._trained_expert("depth", base, origin) == before


def test_labels_made_anew_are_noticed(tmp_path, capsys):
    config = load_config(write_config(tmp_path))
    store = ExpertStore(config)
    base = store.base()
    origin = state_hash(base.state_dict())
    path = store._trained_expert("depth", base, origin)
    model, record = load_model(path)
    capsys.readouterr()
    ExpertStore(config)._trained_expert("depth", base, origin)
    assert "other labels" not in capsys.readouterr().out
    save_model(path, model, {**record, "labels": "0" * 64})
    ExpertStore(config)._trained_expert("depth", base, origin)
    assert f"{path} was trained on other labels" in capsys.readouterr().out


def test_random_weights_and_given_experts_need_no_training(tmp_path):
    given = {f"experts.checkpoints.{task}": f"{task}.safetensors" for task in TASKS}
    assert ExpertStore(load_config(write_config(tmp_path), given)).may_train  # its base is trained
    assert not ExpertStore(load_config(write_config(tmp_path), {**given, "base.random_init": True})).may_train
