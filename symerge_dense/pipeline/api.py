"""SyMerge from Python, in one call: experts, their base and images in, one multi-task model out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from symerge_dense.datasets.image_list import ImageList, is_path
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.engine.runner import working_on
from symerge_dense.fileio import atomic_write
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import load_model, read_metadata, save_model
from symerge_dense.models.hub import MERGED
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline.config import RunConfig, config_of, config_values, plain
from symerge_dense.pipeline.config_checks import explained
from symerge_dense.pipeline.train import train

Path_ = str | Path
NAME = "images"  # of a run without a config file
INPUTS = "inputs"  # folder of what was given as objects, in that of the run
KEPT = ("agreement", "training", "image_size")  # of the merged file's record


def given_config(
    path: Path_ | None,
    overrides: Mapping[str, Any],
    *,
    seed: int | None = None,
    experts: Mapping[str, Path_] | None = None,
    base: Path_ | Mapping[str, Any] | None = None,
    images: Any = None,
    size: Sequence[int] | None = None,
) -> RunConfig:
    """A config with experts, base and images of one's own, or one made of these alone.

    Args:
        path: a config file, or None for none.
        overrides: ``{'key.subkey': value}``.
        seed: of the adaptation, in place of the config's.
        experts: {task: file}, in place of or beside those that the config names.
        base: file of the base weights, or arguments of ``load_base``, in place of the config's.
        images: folders and image files, or the spec of a data set, in place of the config's: the run has no labels.
        size: (H, W) that the images are resized to.

    Raises:
        ValueError: what ``load_config`` raises, or the base is missing.
    """
    values = config_values(path, overrides) if path is not None else {"experts": {}}
    if experts:
        named = {**values["experts"].get("checkpoints", {}), **{task: str(file) for task, file in experts.items()}}
        values["experts"] = {**values["experts"], "checkpoints": named}
    if base is not None:
        values["base"] = dict(base) if isinstance(base, Mapping) else {"checkpoint": str(base)}
    if images is not None:
        kept = {"train": values["data"]["train"]} if "train" in values.get("data", {}) else {}
        if "evaluation" in values:  # no labels are left to measure on
            values["evaluation"] = {key: value for key, value in values["evaluation"].items() if key != "also"}
        values["data"] = {**kept, "unlabelled": {**_images_spec(images), **({"size": tuple(size)} if size else {})}}
    if path is None or experts or base is not None or images is not None:  # single values stand above whole sections
        merged = Config(values)
        merged.merge_from_dict(dict(overrides))
        values = {key: plain(value) for key, value in merged.items()}
    if path is None and "base" not in values:
        raise ValueError(_base_is_missing(values["experts"]["checkpoints"]))
    return config_of(
        NAME if path is None else Path(path).stem, values, seed, "the config" if path is None else str(path)
    )


def _images_spec(images: Any) -> dict[str, Any]:
    if isinstance(images, Mapping):
        return dict(images)
    named = [images] if is_path(images) else list(images)
    if all(Path(path).is_dir() or not Path(path).suffix for path in named):
        return {"type": "ImageFolder", "root": [str(path) for path in named]}
    return {"type": "ImageList", "images": [str(path) for path in named]}


def _base_is_missing(experts: Mapping[str, Any]) -> str:
    path = next(iter(experts.values()))
    known = read_metadata(path).get("base_hash")
    of = f" {path} says that their hash is {known[:12]}." if known else ""
    return (
        "SyMerge needs the weights that the experts were fine-tuned from, for it adds up what each of them changed: "
        f"give base, a file or dict(pretrained=True) for timm's download (symerge train --base FILE).{of}"
    )


def symerge(
    base: Path_ | nn.Module | Mapping[str, Any] | None,
    experts: Mapping[str, Path_ | MultiTaskModel],
    images: Path_ | Sequence[Path_] | Tensor | Dataset[Any] | Any,
    rounds: int = 300,
    size: Sequence[int] | None = None,
    device: str | None = None,
    work_dir: Path_ | None = None,
    seed: int = 0,
    **options: Any,
) -> MultiTaskModel:
    """Merge experts into one multi-task model, adapted to images without labels: ``symerge train`` in one call.

    Args:
        base: what the experts were fine-tuned from: a file, a backbone or network, its state, or the arguments of
            ``load_base``, such as ``dict(pretrained=True)``; ``dict(mean=True)`` is the experts' mean.
        experts: {task: model file or model}; the tasks of the merged model, in this order. A model that is no file is
            taken to come from ``base``.
        images: a folder or image file, or a list of them; an array (N,H,W,3) or tensor (N,3,H,W), RGB in 0..255; or a
            data set, whose items are images, tuples that begin with one, or dicts with 'image'. One in ten, at most a
            hundred, is held out to measure how far the result agrees with the experts.
        rounds: of the adaptation; in each, every task sees one batch.
        size: (H, W) that the images are resized to; needed where they differ in size.
        device: 'cpu' or 'cuda'; None takes the accelerator where there is one.
        work_dir: folder for the record of the run (results.json, merged.safetensors, pictures); None keeps none.
        seed: of everything random.
        **options: of the adaptation, see ``SyMergeOptions``.

    Returns:
        The merged model, on the CPU and in evaluation mode. Its ``record`` has the agreement, the options and the size
        of the images; ``save_model`` writes it into the model's file.

    Raises:
        ValueError: whatever is wrong with files, experts, images, sizes or options, before the adaptation begins.
    """
    if not isinstance(experts, Mapping) or not experts:
        raise ValueError(
            f"experts={experts!r}; give {{task: file or model}}, for example {{'depth': 'depth.safetensors'}}."
        )
    with ExitStack() as stack:
        stack.enter_context(working_on(device))
        folder = Path(work_dir or stack.enter_context(tempfile.TemporaryDirectory()))
        source: Any = base if base is None or _is_plain(base) else _write_base(base, folder / INPUTS)
        files = _write_experts(experts, source, folder / INPUTS)
        config_images, pool = _images(images, size)
        overrides = {f"adaptation.{key}": value for key, value in {**options, "rounds": rounds}.items()}
        config = given_config(None, overrides, seed=seed, experts=files, base=source, images=config_images, size=size)
        train(config, work_dir=str(folder), images=pool, pictures=work_dir is not None)
        model, about = load_model(folder / MERGED)
    model.record = {key: about[key] for key in KEPT}
    return model


def _is_plain(base: Any) -> bool:
    """Whether a base is a file or arguments of ``load_base``, not weights."""
    return is_path(base) or (isinstance(base, Mapping) and not any(isinstance(v, Tensor) for v in base.values()))


def _write_base(base: Any, folder: Path) -> Path:
    """The file of a base that is in memory."""
    state = base.state_dict() if isinstance(base, nn.Module) else base
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"base is a {type(base).__name__}; give a file, a network, or its state {{name: tensor}}.")
    if all(name.startswith("body.") for name in state):  # of a TimmBackbone
        state = {f"backbone.{name}": value for name, value in state.items()}
    path = folder / "base.safetensors"
    with atomic_write(path) as temporary:
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, temporary)
    return path


def _write_experts(experts: Mapping[str, Any], base: Any, folder: Path) -> dict[str, Path_]:
    """{task: file}; a model that is no file gets one, which says that it started from the given base."""
    files: dict[str, Path_] = {}
    for task, expert in experts.items():
        if is_path(expert):
            files[task] = expert
            continue
        if not isinstance(expert, MultiTaskModel):
            raise ValueError(f"expert {task} is a {type(expert).__name__}; give a model file or a MultiTaskModel.")
        if base is None:
            raise ValueError("SyMerge needs the weights that the experts were fine-tuned from: give base.")
        source = base if isinstance(base, Mapping) else {"checkpoint": base}
        origin = None if source.get("mean") else load_base(TimmBackbone(**expert.backbone.spec), **source)
        files[task] = folder / f"{task}.safetensors"
        save_model(files[task], expert, {"base_hash": origin})
    return files


def _images(images: Any, size: Sequence[int] | None) -> tuple[Any, Unlabelled | None]:
    """What a config can say of the images, and the images where it cannot build them."""
    if is_path(images) or (isinstance(images, list | tuple) and images and all(map(is_path, images))):
        return images, None
    with explained("images"):
        found = ImageList(images, None if size is None else (int(size[0]), int(size[1])))
        return {"type": "ImageList", "images": str(found)}, Unlabelled(found)
