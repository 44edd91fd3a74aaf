"""One tiny adaptation in a process of its own: adapt_once.py FOLDER [--resume] [--launcher pytorch] [key=value ...]."""

from __future__ import annotations

import argparse
import ast
import functools
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from safetensors.torch import save_file

from builders import tiny
from symerge_dense.adaptation.adapt import adapt
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.processes import join_processes

OPTIONS = {"rounds": 12, "batch_size": 4, "save_every": 3, "recalibration_images": 8, "augment": None}


@functools.cache
def made(spec):
    """The family of a backbone, and all that an adaptation must leave alone."""
    family = tiny.family(ast.literal_eval(spec))
    return family, facts(family)


def facts(family):
    """Weights, and which of them are trained, in which mode, of base and experts."""
    base, experts, _ = family
    modules = [base, *experts.values()]
    flags = [
        (part.training, *(p.requires_grad for p in part.parameters(False))) for m in modules for part in m.modules()
    ]
    return flags, [value.clone() for module in modules for value in module.state_dict().values()]


def shared_family(spec):
    """``tiny.family``, made once. An adaptation that changes it is found out by the next."""
    family, (flags, values) = made(repr(dict(spec)))
    found = facts(family)
    assert found[0] == flags and all(map(torch.equal, found[1], values)), (
        "an earlier adaptation changed base or experts"
    )
    return family


def adapt_tiny(folder, resume=False, launcher="none", spec=tiny.CNN, validation=None, data=None, **options):
    """Adapt the tiny family in this process; returns the model (finalized) and the data set under the pool."""
    base, experts, _ = shared_family(spec)
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
