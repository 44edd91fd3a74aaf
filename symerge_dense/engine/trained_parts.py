"""Students whose backbone is merged beforehand, and of which whole parts learn."""

from __future__ import annotations

from collections.abc import Mapping

from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import Groups, Student
from symerge_dense.experts.model import MultiTaskModel


class TrainedParts(Student):
    """A network of which the named parts learn, and nothing else.

    Args:
        model: the network, its backbone merged already.
        rates: {part: learning rate}; a part is a submodule of ``model``: 'backbone', 'heads', 'adapters'.
    """

    def __init__(self, model: MultiTaskModel, options: SyMergeOptions, rates: Mapping[str, float]) -> None:
        super().__init__(model, options)
        self.rates = dict(rates)
        for part in self.rates:
            model.get_submodule(part).requires_grad_(True)

    def parameter_groups(self) -> Groups:
        """One group a part, with the options' weight decay."""
        return [{"params": list(self.model.get_submodule(part).parameters()), "lr": rate,
                 "weight_decay": self.options.weight_decay} for part, rate in self.rates.items()]
