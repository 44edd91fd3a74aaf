"""SurgeryV2, deep representation surgery: every block's output is corrected for the task, not only the last features.

x_l' = x_l - up_l(relu(down_l x_l)) behind every block l of the merged encoder, and the same before the head, per task;
minimise sum_l ||x_l' - x_l,expert||_1 over all down and up; all else is frozen. Since the corrections enter the next
block, the encoder runs once for every task.
Yang et al., 2024, https://arxiv.org/abs/2410.14389
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symerge_dense.adaptation.low_rank import LowRank, TaskAdapted, block_channels
from symerge_dense.adaptation.method import AdaptationContext, initial_merge, probe_image
from symerge_dense.adaptation.methods.surgery import Surgery, SurgeryStudent, mean_distance
from symerge_dense.adaptation.objective import own_images
from symerge_dense.adaptation.student import Student
from symerge_dense.models.modes import outputs_of
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import ADAPTIVE_METHODS


class BlockCorrection(nn.Module):
    """The adapters of one block, of which the current task's corrects the output; without a task nothing is changed.

    Args:
        adapters: {task: adapter}.
    """

    def __init__(self, adapters: Mapping[str, LowRank]) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict(dict(adapters))
        self.task: str | None = None

    def correct(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """A forward hook: the block's output minus its correction.

        Args:
            output: of the block.
        """
        if self.task is None:
            return output
        corrected: Tensor = output - self.adapters.get_submodule(self.task)(output)
        return corrected


class DeepTaskAdapted(TaskAdapted):
    """Every task has its own pass through the backbone, with an adapter behind every block and before its head.

    Args:
        model: its backbone and heads are used, not copied.
        image: (N,3,H,W) in 0..255; one pass over it finds the channels of the blocks.
        rank: of the adapters.
        seed: of their initial weights.
    """

    def __init__(self, model: MultiTaskModel, image: Tensor, rank: int, seed: int) -> None:
        super().__init__(model, image, rank, seed)
        self.encoder_passes = len(self.tasks)
        generator = torch.Generator().manual_seed(2**32 + seed)  # other numbers than those of the levels
        blocks = []
        self.block_names: list[str] = []
        for name, (channels, axis) in block_channels(model, image).items():
            own = {task: LowRank(channels, rank, generator, relu=True, axis=axis) for task in self.tasks}
            block = BlockCorrection(own)
            self.backbone.get_submodule(name).register_forward_hook(block.correct)
            self.block_names.append(name)
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks).to(self.mean.device)

    @contextmanager
    def serving(self, task: str) -> Iterator[None]:
        """Inside, the backbone is that of a task.

        Args:
            task: a task of the model.
        """
        blocks = [block for block in self.blocks if isinstance(block, BlockCorrection)]
        for block in blocks:
            block.task = task
        try:
            yield
        finally:
            for block in blocks:
                block.task = None

    def raw_outputs(self, image: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """{task: raw head output (N,C,h,w)}, after a pass through the backbone for every task.

        Args:
            image: (N,3,H,W) in 0..255.
            only: the wanted tasks; None for all.
        """
        outputs: dict[str, Tensor] = {}
        for task in self.tasks:
            if only is None or task in only:
                with self.serving(task):
                    outputs |= super().raw_outputs(image, [task])
        return outputs


class SurgeryV2Student(SurgeryStudent):
    """Adapters learn what the experts' blocks give; the heads are not used."""

    model: DeepTaskAdapted

    def distances(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean absolute difference from the expert's, averaged over blocks and the levels that the task's head reads.

        Args:
            image: (N,3,H,W) in 0..255.
            batch: only ``valid_<task>`` is used, which images the task's expert labels.
        """
        own = own_images(batch, self.active)
        return {task: self._deep_distance(task, image, own.get(task)) for task in self.active}

    def _deep_distance(self, task: str, image: Tensor, own: Tensor | None) -> Tensor:
        levels = self.model.levels(task)
        with torch.no_grad():
            their_blocks, their_features = self._computed(self.teachers[task], image)
        with self.model.serving(task):
            blocks, features = self._computed(self.model, image)
        features = self.model.task_features(task, features)
        seen = [*blocks, *(features[level] for level in levels)]
        return mean_distance(seen, [*their_blocks, *(their_features[level] for level in levels)], own)

    def _computed(self, network: MultiTaskModel, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs of the blocks, and the features."""
        names = self.model.block_names
        with outputs_of({name: network.backbone.get_submodule(name) for name in names}) as found:
            features = network.features(image)
        return [found[name] for name in names], features


@ADAPTIVE_METHODS.register_module()
class SurgeryV2(Surgery):
    """Surgery behind every block of the initial merge, which is frozen; adapters are kept at inference.

    Published code compares the mean over the tokens of a block; here every position counts, as dense heads read it.
    It adds the blocks' losses up, which Adam does not tell from their mean. BatchNorm statistics are those of all
    tasks' passes together. Rank 16 and Adam at 1e-3 without decay are published.

    Args:
        rank: of the adapters.
        lr: Adam's learning rate.
    """

    name: ClassVar[str] = "surgery_v2"
    title: ClassVar[str] = "SurgeryV2"
    paper: ClassVar[str] = "https://arxiv.org/abs/2410.14389"
    learns: ClassVar[str] = "low-rank adapters per task at every block"

    def student(self, context: AdaptationContext) -> Student:
        network = DeepTaskAdapted(initial_merge(context), probe_image(context), self.rank, context.seed)
        return SurgeryV2Student(network, self.options(context), {"adapters": self.lr, "blocks": self.lr})

    def note(self, context: AdaptationContext) -> str:
        return "adapters at every block are kept at inference: an encoder pass per task"
