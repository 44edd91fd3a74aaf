"""Options of an imported network that its tensors do not tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FLAGS = {"mean": "--mean", "std": "--std", "align_corners": "--align-corners", "output_stride": "--output-stride"}


@dataclass(frozen=True)
class NetworkOptions:
    """Options of an imported network; None stands for 'unknown'.

    Args:
        head: options of every head, beside its type and channels.
        mean: of R, G, B on the 0..255 scale.
        std: of R, G, B on the same scale.
        align_corners: of the upsampling to image size.
        output_stride: of the backbone's last feature, 8, 16 or 32.
        out_indices: timm's levels; None for all four.
    """

    head: Mapping[str, Any] = field(default_factory=dict)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    align_corners: bool | None = None
    output_stride: int | None = None
    out_indices: Sequence[int] | None = None

    def updated(self, given: NetworkOptions) -> NetworkOptions:
        """These options, overridden by others; the heads' options are overridden one by one.

        Args:
            given: the others; their unknown options override nothing.
        """
        changes = {
            entry.name: value for entry in dataclasses.fields(self) if (value := getattr(given, entry.name)) is not None
        }
        return dataclasses.replace(self, **{**changes, "head": {**self.head, **given.head}})

    def require_all(self, source: str, head: Iterable[str] = ()) -> None:
        """Refuse unknown options.

        Args:
            source: the file, for messages.
            head: options that the head requires.

        Raises:
            ValueError: an option is unknown; the message names the flags that give it.
        """
        absent = [flag for name, flag in FLAGS.items() if getattr(self, name) is None]
        absent += [f"--head {key}=..." for key in head if key not in self.head]
        if absent:
            raise ValueError(
                f"{source} does not say all that its tensors leave open about the network; give {', '.join(absent)}."
            )
