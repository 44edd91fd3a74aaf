"""What the adaptation minimises."""

from __future__ import annotations

import pytest
import torch

from symerge_dense.adaptation.objective import distance
from symerge_dense.adaptation.options import make_options
from symerge_dense.tasks import Depth, Segmentation


def test_class_balance_moves_the_loss_to_rare_classes() -> None:
    """Three pixels of class 0 are met, one of class 1 is missed: balanced, the miss is half of the mean."""
    label = torch.tensor([[30.0, 30, 30, 0], [0, 0, 0, 30]]).view(1, 2, 1, 4)
    output = torch.tensor([[2.0, 2, 2, 2], [0, 0, 0, 0]]).view(1, 2, 1, 4).requires_grad_()
    met, missed = torch.log1p(torch.tensor(-2.0).exp()), 2 + torch.log1p(torch.tensor(-2.0).exp())
    plain = distance(Segmentation(2), output, label, make_options())
    balanced = distance(Segmentation(2), output, label, make_options(class_balance=1.0))
    torch.testing.assert_close(plain, (3 * met + missed) / 4)
    torch.testing.assert_close(balanced, (met + missed) / 2, rtol=0.01, atol=0)
    twice = distance(Segmentation(2), output, label, make_options(class_balance=1.0), torch.tensor([[[0.0, 0, 0, 1]]]))
    torch.testing.assert_close(twice, missed)  # on top of weights of another origin
    balanced.backward()
    assert output.grad is not None and output.grad[..., 3].abs().sum() > output.grad[..., :3].abs().sum()


def test_class_balance_leaves_tasks_without_classes_alone() -> None:
    output, label = torch.rand(2, 1, 3, 4) + 1, torch.rand(2, 1, 3, 4) + 1
    plain = distance(Depth(), output, label, make_options())
    assert torch.equal(distance(Depth(), output, label, make_options(class_balance=0.5)), plain)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_class_balance_is_a_share(value: float) -> None:
    with pytest.raises(ValueError, match=r"class_balance=.* must lie in \[0, 1\]; 0 is off"):
        make_options(class_balance=value)
