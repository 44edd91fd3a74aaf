"""What the adaptation minimises."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from symerge_dense.adaptation.objective import distance, logarithms
from symerge_dense.adaptation.options import make_options
from symerge_dense.tasks import Depth, Segmentation


def test_class_balance_moves_the_loss_to_rare_classes() -> None:
    """Three pixels of class 0 are met, one of class 1 is missed: balanced, the miss is half of the mean."""
    label = torch.tensor([[30.0, 30, 30, 0], [0, 0, 0, 30]]).view(1, 2, 1, 4)
    output = torch.tensor([[2.0, 2, 2, 2], [0, 0, 0, 0]]).view(1, 2, 1, 4).requires_grad_()
    met, missed = torch.log1p(torch.tensor(-2.0).exp()), 2 + torch.log1p(torch.tensor(-2.0).exp())
    plain = distance(Segmentation(2), output, label, make_options(class_balance=0.0))
    balanced = distance(Segmentation(2), output, label, make_options(class_balance=1.0))
    torch.testing.assert_close(plain, (3 * met + missed) / 4)
    torch.testing.assert_close(balanced, (met + missed) / 2, rtol=0.01, atol=0)
    twice = distance(Segmentation(2), output, label, make_options(class_balance=1.0), torch.tensor([[[0.0, 0, 0, 1]]]))
    torch.testing.assert_close(twice, missed)  # on top of weights of another origin
    balanced.backward()
    assert output.grad is not None and output.grad[..., 3].abs().sum() > output.grad[..., :3].abs().sum()


def test_a_logarithm_gives_every_loss_the_gradient_of_its_relative_fall() -> None:
    losses = torch.tensor([0.02, 5.0], requires_grad=True)
    logs = torch.stack(list(logarithms({"depth": losses[0], "normals": losses[1]}).values()))
    torch.testing.assert_close(logs, losses.log())
    logs.sum().backward()
    torch.testing.assert_close(losses.grad, 1 / losses.detach())
    assert logarithms({"depth": torch.zeros(())})["depth"].isfinite()  # a student that starts at its experts


def _of_half(
    rank: int, meeting: Path, output: Tensor, label: Tensor, keep: Tensor, answers: multiprocessing.Queue
) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    options = make_options(class_balance=1.0)
    loss = distance(
        Segmentation(2), output[rank : rank + 1], label[rank : rank + 1], options, None, keep[rank : rank + 1]
    )
    own = torch.tensor([1.0, 3.0][rank], requires_grad=True)
    logarithms({"depth": own})["depth"].backward()
    answers.put((loss.item(), own.grad.item()))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("labelled", [4, 3])
def test_class_balance_and_logarithms_count_the_batch_on_several_processes(tmp_path: Path, labelled: int) -> None:
    """The rare class is met by one process alone; the mean of both losses is the loss of one process."""
    context = multiprocessing.get_context("fork")
    label = torch.tensor([[[30.0, 30, 30, 30], [0, 0, 0, 0]], [[30, 30, 30, 0], [0, 0, 0, 30]]])[:, :, None]
    output = torch.tensor([[[2.0, 1, 2, 3], [0, 0, 0, 0]], [[2, 1, 2, 3], [0, 0, 0, 0]]])[:, :, None]
    keep = torch.ones(2, 1, 4, dtype=torch.bool)
    keep[0, 0, labelled:] = False
    whole = distance(Segmentation(2), output, label, make_options(class_balance=1.0), None, keep)
    answers: multiprocessing.Queue = context.Queue()
    given = (tmp_path / "meeting", output, label, keep, answers)
    ranks = [context.Process(target=_of_half, args=(rank, *given)) for rank in range(2)]
    for process in ranks:
        process.start()
    halves, slopes = zip(*[answers.get(timeout=60) for _ in ranks], strict=True)
    for process in ranks:
        process.join()
    assert sum(halves) / 2 == pytest.approx(whole.item(), rel=1e-5)
    assert halves[0] != pytest.approx(halves[1], rel=0.1)
    assert slopes == (0.5, 0.5)  # of the logarithm of the mean over processes, 2


def test_class_balance_leaves_tasks_without_classes_alone() -> None:
    output, label = torch.rand(2, 1, 3, 4) + 1, torch.rand(2, 1, 3, 4) + 1
    plain = distance(Depth(), output, label, make_options(class_balance=0.0))
    assert torch.equal(distance(Depth(), output, label, make_options(class_balance=0.5)), plain)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_class_balance_is_a_share(value: float) -> None:
    with pytest.raises(ValueError, match=r"class_balance=.* must (lie in \[0, 1\]; 0 is off|be a finite number)"):
        make_options(class_balance=value)
