"""One tiny adaptation in a process of its own: adapt_once.py FOLDER [--resume] [--launcher pytorch] [key=value ...]."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

from mmengine.dist import is_main_process
from safetensors.torch import save_file

from builders import tiny
from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.runner import join_processes

OPTIONS = {"rounds": 12, "batch_size": 4, "save_every": 3, "recalibration_images": 8, "augment": None}


def adapt_tiny(folder, resume=False, launcher="none", spec=tiny.CNN, validation=None, data=None, **options):
    """Adapt the tiny family in this process; returns the model (finalized) and the data set under the pool."""
    base, experts, _ = tiny.family(spec)
    data = data or tiny.TinySet({}, split="pool")
    model = SyMergeModel(base, experts, make_options(**{**OPTIONS, **options}))
    adapt(
        model,
        experts,
        data if isinstance(data, Unlabelled) else Unlabelled(data),
        Path(folder),
        seed=3,
        launcher=launcher,
        resume=resume,
        validation=validation,
    )
    return model, data


def state(model):
    """What adaptation changed, as contiguous tensors."""
    return {name: value.contiguous() for name, value in model.trainable_state_dict().items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--launcher", default="none")
    parser.add_argument("options", nargs="*")
    args = parser.parse_intermixed_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    join_processes(args.launcher)
    chosen = {key: ast.literal_eval(text) for key, text in (item.split("=") for item in args.options)}
    chosen["spec"] = getattr(tiny, chosen.pop("net", "CNN"))
    adapted, _ = adapt_tiny(args.folder, args.resume, args.launcher, **chosen)
    if is_main_process():
        save_file(state(adapted), args.folder / "end.safetensors")
