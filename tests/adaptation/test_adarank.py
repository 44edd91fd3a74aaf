"""AdaRank: the mask and its gradient by hand, the merge of the directions that are left, and what is folded."""

import pytest
import torch
from builders import tiny
from builders.adaptive_runs import shared

from symerge_dense.adaptation.methods.adarank import AdaRank, straight_through
from symerge_dense.adaptation.objective import PREFIX


def attached(**options):
    student = AdaRank(**options).student(shared())
    experts = {task: expert.eval() for task, expert in shared().experts.items()}
    student.attach(experts)
    return student.train(), experts


def test_the_mask_is_binary_and_its_gradient_is_the_sigmoids():
    scores = torch.tensor([0.1, -0.1, 0.0, 20.0], requires_grad=True)
    mask = straight_through(scores)
    assert mask.tolist() == [1, 0, 0, 1]
    (mask * torch.tensor([1.0, 2.0, 1.0, 1.0])).sum().backward()
    p = torch.sigmoid(scores.detach().double() / 10)
    wanted = p * (1 - p) / 10 * torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(scores.grad.double(), wanted, rtol=1e-5, atol=1e-9)


def test_it_starts_as_task_arithmetic():
    student, experts = attached()
    base = dict(student.model.backbone.named_parameters())
    for name, value in student.merged_weights().items():
        deltas = [dict(expert.backbone.named_parameters())[name] - base[name] for expert in experts.values()]
        torch.testing.assert_close(value, base[name] + 0.3 * sum(deltas), rtol=1e-4, atol=1e-5)
    assert student.scores.min() == student.scores.max() and len(student.scores) > len(student.merge.groups)


def test_masked_directions_are_left_out_and_scales_are_those_of_whole_tensors():
    student, experts = attached()
    name = "body.layer2.0.conv1.weight"
    group = list(student.merge.groups).index(name)
    rows = (student.owner[student.masked] == group).nonzero()[:, 0]
    with torch.no_grad():
        student.scores[rows[1:]] = -1.0  # the first direction of every task stays
        student.scales[group] = torch.tensor([0.5, 1.0, 0.0])
    base = dict(student.model.backbone.named_parameters())
    wanted = base[name].detach().double().flatten(1)
    for scale, expert in zip((0.5, 1.0, 0.0), experts.values(), strict=True):
        delta = (expert.backbone.get_parameter(name) - base[name]).detach().double().flatten(1)
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        wanted = wanted + scale * values[0] * torch.outer(left[:, 0], right[0])
    merged = student.merged_weights()
    torch.testing.assert_close(merged[name].detach().double().flatten(1), wanted, rtol=1e-4, atol=1e-5)
    shares = student.log_scalars()
    assert shares["directions_depth"].item() == pytest.approx(1 - (len(rows) - 1) / len(student.scores))


def test_scales_and_scores_learn_from_expert_labels_and_the_masked_merge_is_folded():
    student, experts = attached(coefficient_lr=0.2)
    image = torch.rand(2, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        labels = {PREFIX + task: expert(image, mode="tensor")[task] for task, expert in experts.items()}
    optimizer = torch.optim.Adam(student.parameter_groups())
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        total = sum(student.distances(image, labels).values())
        total.backward()
        optimizer.step()
        student.after_step()
        losses.append(total.item())
    assert min(losses[1:]) < losses[0] and 0 < (student.scores > 0).float().mean() < 1
    student.fold()
    coefficients = student.coefficients().detach()
    assert torch.equal(student.merge.coefficients, coefficients) and bool((coefficients == 0).any())
    table = student.merge.table()
    assert set(table) == set(student.merge.groups) and not student.merge.coefficients.requires_grad


def test_a_clamp_holds_for_the_scales_and_a_smaller_rank_shares_the_rest():
    student, _ = attached(clamp=(0.0, 0.4), singular_rank=2)
    with torch.no_grad():
        student.scales.fill_(0.9)
    student.after_step()
    assert bool((student.scales == 0.4).all())
    assert bool((student.owner.bincount() <= 3).all())  # two directions, and the rest


def test_the_history_has_the_scales_after_the_step():
    student, _ = attached(clamp=(0.0, 0.8))
    with torch.no_grad():
        student.scales.fill_(0.9)
    student.after_step()
    assert student.log_scalars()["coefficient_mean_depth"].item() == pytest.approx(0.8)
