"""What a resumed run may change, and what not."""

import pytest
from builders.pipeline_tiny import write_config

from symerge_dense.adaptation.options import NO_NUMBER
from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.models.checkpoint import load_model, state_hash
from symerge_dense.pipeline import run_dir
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.train import train

ALLOWED = {
    "adaptation.num_workers": 2,
    "adaptation.save_every": 7,
    "evaluation.num_workers": 1,
    "evaluation.panels": 5,
    "experts.recipe.num_workers": 1,
    "base.train.recipe.num_workers": 1,
    "log_level": "INFO",
    "val_interval": 2,
    "visualizer": {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
}
REFUSED = {
    "adaptation.rounds": (5, "adaptation.rounds (4, now 5)"),
    "adaptation.batch_size": (2, "adaptation.batch_size (4, now 2)"),
    "evaluation.batch_size": (2, "evaluation.batch_size (3, now 2)"),  # float sums of other batches round differently
    "experts.recipe.epochs": (2, "experts.recipe.epochs (1, now 2)"),
    "data.unlabelled.count": (5, "data.unlabelled.count (6, now 5)"),
    "head.width": (4, "head.width (8, now 4)"),
    "seed": (3, "seed (0, now 3)"),
    "adaptation.layer": ("final", "adaptation.layer (not given, now final)"),
}


@pytest.fixture
def begun(tmp_path):
    path = write_config(tmp_path)
    return path, run_dir.open_run(tmp_path / "run", load_config(path), resume=False)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_no_result_depends_on_may_change(name, begun):
    path, folder = begun
    before = (folder / "run.json").read_text()
    run_dir.open_run(folder, load_config(path, {name: ALLOWED[name]}), resume=True)
    assert (folder / "run.json").read_text() == before


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_by_name(name, begun):
    (path, folder), (value, told) = begun, REFUSED[name]
    with pytest.raises(ValueError) as found:
        run_dir.open_run(folder, load_config(path, {name: value}), resume=True)
    assert f"changed: {told}. Use the same config" in str(found.value)


FREELY = {
    "adaptation.num_workers": 1,
    "adaptation.save_every": 3,
    "adaptation.task_vectors": "mapped",
    "adaptation.activation_checkpointing": True,
}


def test_a_run_resumed_with_other_workers_and_memory_ends_like_an_unbroken_one(tmp_path, monkeypatch):
    """Interrupted after its first checkpoint, and resumed with a data worker, other intervals and less memory."""
    from symerge_dense.adaptation.hook import SyMergeHook

    assert set(FREELY) == {f"adaptation.{name}" for name in NO_NUMBER}
    path = write_config(tmp_path)
    train(load_config(path), work_dir=str(tmp_path / "unbroken"))
    step = SyMergeHook.after_train_iter

    def interrupted(self, runner, *given, **named):
        if runner.iter == 3:
            raise KeyboardInterrupt
        step(self, runner, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(SyMergeHook, "after_train_iter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(load_config(path), work_dir=str(tmp_path / "broken"))
    assert checkpoints(tmp_path / "broken" / "checkpoints")
    other = load_config(path, {**FREELY, "evaluation.panels": 1})
    train(other, work_dir=str(tmp_path / "broken"), resume=True)
    models = [load_model(tmp_path / run / "merged.safetensors")[0] for run in ("unbroken", "broken")]
    assert state_hash(models[0].state_dict()) == state_hash(models[1].state_dict())
    (tmp_path / "broken" / "merged.safetensors").unlink()  # of a finished run: not taken for whole
    train(other, work_dir=str(tmp_path / "broken"), resume=True)
    assert state_hash(load_model(tmp_path / "broken" / "merged.safetensors")[0].state_dict()) == state_hash(
        models[0].state_dict()
    )
