"""FW-Merging: which expert a step moves to, how far, and that nothing leaves the experts' convex hull."""

import pytest
import torch
from builders import tiny
from builders.adaptive_runs import setting, shared

from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.methods.frank_wolfe import FrankWolfe, FrankWolfeStudent, chosen_vertices
from symerge_dense.adaptation.objective import PREFIX


def attached(**arguments):
    student = FrankWolfe(**arguments).student(shared())
    experts = {task: expert.eval() for task, expert in shared().experts.items()}
    student.attach(experts)
    return student.train(), experts


def batch(experts, seed):
    image = torch.rand(4, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(seed)) * 255
    with torch.no_grad():
        return image, {PREFIX + task: expert(image, mode="tensor")[task] for task, expert in experts.items()}


def step(student, iteration, steps, *batches):
    student.before_step(iteration, steps)
    sum(student.distances(*given)[task] for given in batches for task in student.active).backward()
    student.after_step()


def test_the_vertex_is_the_one_with_the_least_product_with_the_gradient():
    start = torch.full((4, 2), 0.25)
    gradient = torch.tensor([[3.0, -1.0], [-2.0, -1.0], [1.0, 2.0], [-2.0, -2.0]])
    assert chosen_vertices(gradient, start).tolist() == [[0, 1], [1, 0], [0.25, 0.25], [1, 0]]
    uphill = torch.tensor([[1.0, 2.0]])
    assert chosen_vertices(uphill, torch.zeros(1, 2)).tolist() == [[0, 0]]  # the base


@pytest.mark.parametrize("granularity", ["task", "tensor"])
def test_a_step_goes_to_the_expert_that_lowers_the_loss_most(granularity):
    """<g, tau_t> with the gradient of the loss in the weights themselves, of the same merge, folded."""
    student, experts = attached(granularity=granularity, step=0.5)
    image, labels = batch(experts, 1)
    weights = {name: value.detach().requires_grad_() for name, value in student.merged_weights().items()}
    student.merged_weights = lambda: weights
    total = sum(student.distances(image, labels).values())
    gradients = dict(zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True))
    del student.merged_weights
    base = {name: value.detach() for name, value in student.model.backbone.named_parameters()}
    before = student.merge.coefficients.detach().clone()
    step(student, 0, 10, (image, labels))
    for row, names in enumerate(student.merge.groups.values()):
        products = [
            sum(float((gradients[n] * (e.backbone.state_dict()[n] - base[n])).sum()) for n in names)
            for e in experts.values()
        ]
        products.append(sum(before[row].double() @ torch.tensor(products, dtype=torch.float64)[:, None]).item())
        ordered = sorted(products)
        if ordered[1] - ordered[0] < 1e-3 * max(map(abs, products)):
            continue  # too near to call in float32
        best = products.index(ordered[0])
        wanted = before[row] if best == len(experts) else torch.eye(len(experts))[best]
        torch.testing.assert_close(student.merge.coefficients[row].detach(), before[row] + 0.5 * (wanted - before[row]))


def test_a_gradient_is_gathered_over_its_share_of_the_rounds():
    student, experts = attached(iterations=2)
    both, _ = attached(iterations=1)
    first, second = batch(experts, 1), batch(experts, 2)
    start = student.merge.coefficients.detach().clone()
    step(student, 0, 4, first)
    assert torch.equal(student.merge.coefficients, start) and bool(student.gradient.any())
    step(student, 1, 4, second)
    assert not torch.equal(student.merge.coefficients, start) and not bool(student.gradient.any())
    step(both, 0, 1, first, second)
    torch.testing.assert_close(student.merge.coefficients, both.merge.coefficients)


def test_steps_shrink_and_stay_in_the_hull_and_without_a_gradient_nothing_moves():
    student, _ = attached(step=0.6, iterations=3)
    start = student.merge.coefficients.detach().clone()
    student.before_step(0, 3)
    student.after_step()
    assert torch.equal(student.merge.coefficients, start)
    for number, length in enumerate((0.6, 0.4, 0.3)):
        before = student.merge.coefficients.detach().clone()
        student.gradient[:, 1] = -1.0
        student.before_step(number, 3)
        student.after_step()
        torch.testing.assert_close(student.merge.coefficients[:, 1], before[:, 1] + length * (1 - before[:, 1]))
    assert student.merge.coefficients.min() >= 0 and student.merge.coefficients.sum(1).max() <= 1


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    """The checkpoint lies within a Frank-Wolfe step: what was gathered before it is not lost."""
    options = {"rounds": 6, "save_every": 4}
    method = FrankWolfe(iterations=2, granularity="tensor")
    unbroken = method.run(setting(tmp_path / "a", **options), tmp_path / "unbroken")
    proper = FrankWolfeStudent.before_step

    def interrupted(self, iteration, steps):
        if iteration == 5:
            raise KeyboardInterrupt
        proper(self, iteration, steps)

    monkeypatch.setattr(FrankWolfeStudent, "before_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        method.run(setting(tmp_path / "b", **options), tmp_path / "broken")
    monkeypatch.undo()
    resumed = method.run(setting(tmp_path / "b", **options), tmp_path / "broken", resume=True)
    assert resumed.coefficients == unbroken.coefficients
    histories = [read_history(tmp_path / name / "history.jsonl") for name in ("unbroken", "broken")]
    assert histories[0] == histories[1] and len(histories[0]) == 6
