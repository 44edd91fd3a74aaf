"""Models as Hugging Face Hub folders: ``model.safetensors``, ``config.json`` and a model card; nothing pickled.

Folders are written and read without a network. ``huggingface_hub`` comes with timm.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download

import symerge_dense
from symerge_dense.fileio import atomic_write, write_text
from symerge_dense.models.model_card import PICTURE, card

if TYPE_CHECKING:
    from symerge_dense.models.multi_task import MultiTaskModel

WEIGHTS = "model.safetensors"
MERGED = "merged.safetensors"  # of a run
CONFIG = ("model", "plugins", "hash", "base_hash", "image_size")  # of the weights' record, repeated in config.json


class HubModel(ModelHubMixin):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of a ``MultiTaskModel``.

    Attributes:
        record: what the file says that the model was loaded from; empty for a new one. ``save_pretrained`` repeats it.
    """

    record: Mapping[str, Any]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H,W) of the images that it learned on, or that its backbone is built for; None where neither is known."""
        size = self.record.get("image_size") or self._network().backbone.timm_args.get("img_size")
        if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(side) is int for side in size):
            return None
        return (size[0], size[1]) if min(size) > 0 else None

    def save_pretrained(
        self, save_directory: str | Path, *, model_card_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> str | None:
        """Write a folder that ``from_pretrained`` reads. A model card that it already holds is kept.

        Args:
            save_directory: the folder; made where it is missing.
            model_card_kwargs: for ``generate_model_card``; ``name`` is the folder's by default.
            **options: of huggingface_hub's mixin: repo_id, push_to_hub, ...

        Returns:
            The commit's address where ``push_to_hub`` is True, else None.

        Raises:
            ValueError: the model cannot be written to a file, or the run's record cannot be read.
        """
        folder = Path(save_directory)
        words = {"name": options.get("repo_id") or folder.resolve().name, **(model_card_kwargs or {})}
        # Made before anything is written: what is wrong with the run is said at once.
        words["made"] = self.generate_model_card(**words)
        address: str | None = super().save_pretrained(folder, model_card_kwargs=words, **options)
        picture = Path(words["run"]) / PICTURE if words.get("run") else None
        if picture is not None and picture.is_file():
            with atomic_write(folder / PICTURE) as temporary:
                shutil.copyfile(picture, temporary)
        return address

    def _save_pretrained(self, save_directory: Path) -> None:
        """The mixin's hook: write weights and config.json."""
        from symerge_dense.models.checkpoint import save_model  # it imports the class that derives from this one
        from symerge_dense.models.weight_files import read_metadata

        save_model(save_directory / WEIGHTS, self._network(), self.record)
        record = read_metadata(save_directory / WEIGHTS)
        about = {key: record[key] for key in CONFIG if key in record}
        config = {"library_name": "symerge_dense", "library_version": symerge_dense.__version__, **about}
        write_text(save_directory / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no arguments for __init__: the file describes the network
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> MultiTaskModel:
        """Read a model of a folder or of the Hub, by ``load_model``: a file is data, and nothing of it is run.

        Args:
            pretrained_model_name_or_path: the folder, or the Hub's 'user/name'.
            force_download: download a file that is at hand.
            token: of the Hub.
            cache_dir: where downloads are kept.
            local_files_only: take what was downloaded before.
            revision: branch, tag or commit on the Hub.

        Raises:
            ValueError: there is no such folder or repository, or ``load_model`` refuses its file.
        """
        from symerge_dense.models.checkpoint import load_model  # it imports the class that derives from this one

        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            return load_model(folder / WEIGHTS)[0]
        if str(pretrained_model_name_or_path).count("/") != 1:
            raise ValueError(
                f"there is no folder {folder}; give one that save_pretrained wrote, or the Hub's user/name."
            )
        try:
            path = hf_hub_download(
                str(pretrained_model_name_or_path),
                WEIGHTS,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        except Exception as error:  # whatever the hub's client and its network stack raise
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"there is no folder {folder}, and the Hub gives no {WEIGHTS} of that name ({first[:200]}); give a "
                "folder that save_pretrained wrote, or user/name where there is a network."
            ) from error
        return load_model(path)[0]

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Upload what ``save_pretrained`` writes.

        Args:
            repo_id: 'user/name' on the Hub; made where it is missing.
            model_card_kwargs: for ``generate_model_card``.
            **options: of huggingface_hub's mixin: private, token, branch, commit_message, ...

        Returns:
            The commit's address.
        """
        words = {"name": repo_id, **(model_card_kwargs or {})}
        address: str = super().push_to_hub(repo_id, model_card_kwargs=words, **options)
        return address

    def generate_model_card(
        self,
        name: str = "model",
        run: str | Path | None = None,
        license: str | None = None,
        made: ModelCard | None = None,
        **_: Any,
    ) -> ModelCard:
        """The model card, README.md, from the model's record and the record of its run.

        Args:
            name: the repository's name, or the folder's; the example in the card reads it.
            run: folder of the run that made the model (results.json, panels.png); None says what the model file says.
            license: of the weights, as the Hub abbreviates it: 'apache-2.0', 'cc-by-nc-4.0', ...
            made: a card that is ready, which is returned as it is.

        Raises:
            ValueError: the run's results cannot be read.
        """
        return made or card(self._network(), name, run, license)

    def _network(self) -> MultiTaskModel:
        return self  # type: ignore[return-value]  # the one class that derives from this one


def model_file(path: str | Path) -> Path:
    """The file of a model: the path itself, or that in a folder of ``save_pretrained`` or of a finished run.

    Args:
        path: the file or folder.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    return path / (MERGED if (path / MERGED).is_file() and not (path / WEIGHTS).exists() else WEIGHTS)
