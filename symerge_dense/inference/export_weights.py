"""``symerge export`` to files of weights: a slim model file, timm's backbone alone, or a folder for the Hub.

Each is read back and compared with the model before it takes its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import symerge_dense
from symerge_dense.datasets.rooms.dataset import SIZE as ROOM_SIZE
from symerge_dense.fileio import atomic_write, temporary_folder
from symerge_dense.inference.export import opened, reference
from symerge_dense.inference.export_check import check_images, compare, report
from symerge_dense.inference.export_graph import GraphOptions
from symerge_dense.models.checkpoint import halved, load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.timm_weights import of_complete
from symerge_dense.progress import say

NEW = "the file written"


@dataclass(frozen=True)
class WeightsExport:
    """One export of weights.

    Args:
        model: a model file, or a folder of the Hub.
        out: the ``.safetensors`` file to write, or the folder for the Hub.
        tasks: the wanted tasks; none for all.
        fp16: write matrices and convolutions in float16.
        check: image files and folders that the result is checked on; none renders rooms.
        overwrite: replace ``out``; of a folder, the files of the same name.
    """

    model: str | Path
    out: str | Path
    tasks: Collection[str] = ()
    fp16: bool = False
    check: Sequence[str | Path] = ()
    overwrite: bool = False

    def write(self) -> dict[str, Any]:
        """Write a slim model file: the wanted tasks, perhaps in float16.

        Returns:
            The differences of every task.

        Raises:
            ValueError: the model or ``out`` is refused, or what is read back differs too much.
        """
        model, out = self._opened(), self._file()
        record = {key: value for key, value in model.record.items() if key != "export"}
        with temporary_folder(out) as folder:
            trial = folder / out.name
            save_model(trial, model, record, self.fp16)
            found = self._compared(model, load_model(trial)[0])
            about = {"source_hash": model.record.get("hash"), "fp16": self.fp16, "check": found}
            save_model(trial, model, {**record, "export": about}, self.fp16)
            os.replace(trial, out)
        say(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {', '.join(model.tasks)}")
        return found

    def write_timm(self) -> dict[str, Any]:
        """Write the backbone's weights under timm's names, for ``timm.create_model(...).load_state_dict``.

        Returns:
            The record in the file's header: how to build the network, and which of its tensors the file lacks.

        Raises:
            ValueError: the model or ``out`` is refused, or timm does not load the file.
        """
        model, out = self._opened(), self._file()
        backbone = model.backbone
        state = of_complete(backbone.body.state_dict(), backbone.name, backbone.timm_args)
        state = {name: value.detach().clone().contiguous() for name, value in state.items()}
        state = halved(state) if self.fp16 else state
        with atomic_write(out) as temporary:
            save_file(state, temporary, {"format": "pt"})
            missing = self._loaded_by_timm(model, load_file(temporary))
            record = {
                "create_model": {"model_name": backbone.name, "num_classes": 0, **backbone.timm_args},
                "missing": missing,
                "preprocessing": model.spec["preprocessing"],
                "source_hash": model.record.get("hash"),
                "version": symerge_dense.__version__,
            }
            save_file(state, temporary, {"format": "pt", "timm": json.dumps(record)})
        words = "".join(f", {key}={value!r}" for key, value in backbone.timm_args.items())
        say(
            f"{out}: {len(state)} tensors. timm.create_model({backbone.name!r}, num_classes=0{words})"
            f".load_state_dict(load_file({out.name!r}){', strict=False' if missing else ''})"
            + (f"; it leaves {', '.join(missing)} as they are" if missing else "")
        )
        return record

    def write_hub(self, run: str | Path | None = None, license: str | None = None, repo_id: str | None = None) -> None:
        """Write a folder for the Hugging Face Hub, with a model card. Files of other names in it are left alone.

        Args:
            run: folder of the run that made the model; None says what the model's file says.
            license: of the weights, as the Hub abbreviates it.
            repo_id: 'user/name' that the folder will have on the Hub; by default the folder's name.

        Raises:
            ValueError: the model, the run or ``out`` is refused, or what is read back differs.
        """
        model, out = self._opened(), Path(self.out)
        if out.is_file() or (out.is_dir() and any(out.iterdir()) and not self.overwrite):
            raise ValueError(f"{out} exists already; choose another --out, or --overwrite it.")
        words = {"name": repo_id or out.resolve().name, "run": run, "license": license}
        with temporary_folder(out) as folder:
            model.save_pretrained(folder, model_card_kwargs=words)
            self._compared(model, MultiTaskModel.from_pretrained(folder))
            out.mkdir(exist_ok=True)
            for path in sorted(folder.iterdir()):
                os.replace(path, out / path.name)
        say(
            f"{out}: {', '.join(path.name for path in sorted(out.iterdir()))}. Upload it by hf upload, or in Python by "
            "model.push_to_hub('user/name')."
        )

    # -- parts ------------------------------------------------------------------------------------------------------
    def _opened(self) -> MultiTaskModel:
        return opened(self.model, self.tasks)

    def _file(self) -> Path:
        out = Path(self.out)
        if out.suffix != ".safetensors":
            raise ValueError(f"--out {out}: files of --to safetensors end in .safetensors.")
        if out.exists() and not self.overwrite:
            raise ValueError(f"{out} exists already; choose another --out, or --overwrite it.")
        return out

    def _images(self, model: MultiTaskModel) -> Tensor:
        return check_images(self.check, model.image_size or ROOM_SIZE).float()

    def _compared(self, model: MultiTaskModel, again: MultiTaskModel) -> dict[str, Any]:
        raw, batches = GraphOptions(), list(self._images(model).split(1))
        found = compare(reference(model, raw), reference(again, raw), batches, self.fp16)
        return report(found, False, self.fp16, NEW)

    def _loaded_by_timm(self, model: MultiTaskModel, state: dict[str, Tensor]) -> list[str]:
        """The tensors that a complete network lacks in the file, after a look at its features."""
        backbone = model.backbone
        complete = timm.create_model(backbone.name, pretrained=False, num_classes=0, **backbone.timm_args).eval()
        missing, unexpected = complete.load_state_dict(state, strict=False)
        if unexpected:
            raise ValueError(f"timm's {backbone.name} has no {', '.join(unexpected[:5])}; export the whole model.")
        if hasattr(complete, "forward_intermediates"):
            image = model.normalised(self._images(model)[:1])
            with torch.no_grad():
                ours = [feature.float() for feature in backbone(image)]
                theirs = complete.forward_intermediates(image, indices=backbone.out_indices, intermediates_only=True)
            names = [f"feature {level}" for level in backbone.out_indices]
            wanted, found = dict(zip(names, ours, strict=True)), dict(zip(names, theirs, strict=True))
            report(compare(lambda _: wanted, lambda _: found, [image], self.fp16), False, self.fp16, "timm")
        return list(missing)
