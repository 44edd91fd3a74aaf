"""SAMerging: the divergence at a temperature by hand, a start at the base, and sharpness-aware steps of its radius."""

import pytest
import torch
from builders import tiny
from builders.adaptive_runs import shared

from symerge_dense.adaptation.objective import PREFIX, task_losses
from symerge_dense.adaptation.options import make_options
from symerge_dense.engine.optim_wrapper import ParameterGroupsConstructor
from symerge_dense.engine.sharpness import SharpnessAware
from symerge_dense.registry import ADAPTIVE_METHODS
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.segmentation import Segmentation


def test_the_divergence_at_a_temperature_is_that_of_the_softened_distributions():
    """Logits log 1 and log 9 against equal ones: at T = 2 the expert's odds are 1 to 3."""
    expert, ours = torch.tensor([1.0, 9.0]).log().view(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    tasks = {"segmentation": Segmentation(classes=2)}
    for temperature, odds in ((1.0, (0.1, 0.9)), (2.0, (0.25, 0.75))):
        p = torch.tensor(odds, dtype=torch.float64)
        wanted = (p * (p / 0.5).log()).sum().item()
        options = make_options(temperature=temperature)
        found = task_losses(tasks, {"segmentation": ours}, {"segmentation": expert}, options)["segmentation"]
        assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_a_temperature_is_for_logits_alone():
    """Bernoulli logits are divided by it; metres are not."""
    first, second = torch.tensor([[[[2.0, -1.0]]]]), torch.tensor([[[[0.5, 3.0]]]])
    tasks = {"edges": Edges(), "depth": Depth()}
    outputs, labels = dict.fromkeys(tasks, first), dict.fromkeys(tasks, second)
    warm, plain = (task_losses(tasks, outputs, labels, make_options(temperature=t)) for t in (2.0, 1.0))
    halves = task_losses(tasks, dict.fromkeys(tasks, first / 2), dict.fromkeys(tasks, second / 2), make_options())
    assert warm["edges"] == halves["edges"] != plain["edges"] and warm["depth"] == plain["depth"]


def test_it_starts_from_the_base_and_sharpness_aware_steps_of_coefficients_lower_the_divergence():
    student = ADAPTIVE_METHODS["samerging"](coefficient_lr=0.1).student(shared())
    experts = {task: expert.eval() for task, expert in shared().experts.items()}
    student.attach(experts)
    assert not bool(student.merge.coefficients.any())
    base = student.model.backbone.state_dict()
    assert all(torch.equal(value, base[name]) for name, value in student.merged_weights().items())
    wrapper = ParameterGroupsConstructor({"type": "OptimWrapper"})(student)
    assert isinstance(wrapper, SharpnessAware) and wrapper.sharpness == 0.07
    image = torch.rand(2, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        labels = {PREFIX + task: expert(image, mode="tensor")[task] for task, expert in experts.items()}
    student.train()
    losses = [student.train_step({"image": image, **labels}, wrapper)["loss"].item() for _ in range(6)]
    assert min(losses[3:]) < 0.95 * losses[0], losses
    assert student.merge.coefficients.max() > 0.1 and student.merge.coefficients.min() < 0  # no clamp


def test_the_note_says_how_far_coefficients_can_go_and_options_can_be_given():
    assert (
        ADAPTIVE_METHODS["samerging"]().note(shared())
        == f"{shared().options.rounds} steps at 0.003, 1000 at 0.001 in the paper"
    )
    method = ADAPTIVE_METHODS.build({"type": "samerging", "coefficient_lr": 0.1, "temperature": 1.0})
    assert method.options(shared()).temperature == 1.0 and "at 0.1," in method.note(shared())
