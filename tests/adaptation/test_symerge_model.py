"""The adapted model: what is trained, what the objective is, folding."""

import pytest
import torch
from builders import tiny

from symerge_dense.adaptation.finalize import finalized
from symerge_dense.adaptation.objective import PREFIX, task_of
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.models.batchnorm import batchnorms


def build(spec=tiny.CNN, **options):
    base, experts, _ = tiny.family(spec)
    symerge = SyMergeModel(base, experts, make_options(**options))
    symerge.attach(experts)
    return symerge, experts


def batch(experts, count=4):
    torch.manual_seed(7)
    image = torch.rand(count, 3, *tiny.SIZE) * 255
    with torch.no_grad():
        return {"image": image, **{PREFIX + t: e(image, mode="tensor")[t] for t, e in experts.items()}}


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT])
def test_only_coefficients_and_the_adapted_layer_get_gradients(spec):
    model, experts = build(spec, coefficient_lr=3e-2, layer_lr=4e-3)
    model.train()
    total, _ = model.parse_losses(model(**batch(experts), mode="loss"))
    total.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    layers = {
        f"model.heads.{t}.{m}.{p}"
        for t, names in model.adapted.items()
        for m in names
        for p, _ in model.model.heads[t].get_submodule(m).named_parameters()
    }
    assert trained == layers | {"merge.coefficients"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.grad is not None)
    groups = model.parameter_groups()
    assert [group["lr"] for group in groups] == [3e-2, 4e-3]
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_gradient_of_a_coefficient_equals_finite_differences_through_the_whole_model():
    model, experts = build(tiny.VIT, statistics="running", balance="none")
    model.double()
    data = {key: value.double() for key, value in batch(experts).items()}

    def objective():
        outputs = model.outputs(data["image"])
        distances = [(outputs[t] - data[PREFIX + t]).square().mean() for t in outputs]
        return sum(distances)

    objective().backward()
    gradient = model.merge.coefficients.grad.clone()
    for group, task in ((0, 0), (5, 2)):
        step = 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                model.merge.coefficients[group, task] += sign * step
                values.append(objective().item())
                model.merge.coefficients[group, task] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[group, task].item(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT])
def test_zero_coefficients_give_the_base_and_one_expert_alone_gives_the_expert(spec):
    base, experts, _ = tiny.family(spec)
    name = "depth"
    symerge = SyMergeModel(base, {name: experts[name]}, make_options(initial=0.0))
    symerge.attach({name: experts[name]})
    model = symerge.model
    symerge.fold()
    assert all(torch.equal(v, base.get_parameter(k)) for k, v in model.backbone.named_parameters())
    symerge.unfold()
    symerge.merge.coefficients.data.fill_(1.0)
    symerge.fold()
    assert all(torch.equal(v, experts[name].backbone.get_parameter(k)) for k, v in model.backbone.named_parameters())


def test_folded_and_unfolded_models_agree_and_unfolding_restores_everything():
    model, experts = build()
    model.eval()
    image = batch(experts)["image"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loose = model.outputs(image)
    model.fold()
    for task, output in model.outputs(image).items():
        torch.testing.assert_close(output, loose[task], rtol=1e-4, atol=1e-5)
    model.unfold()
    with finalized(model, [image]) as plain:
        assert not torch.equal(batchnorms(plain)[0].running_mean, before["model.backbone.body.bn1.running_mean"])
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_objective_is_zero_against_the_models_own_output():
    model, _ = build(balance="initial")
    model.eval()
    image = torch.rand(2, 3, *tiny.SIZE) * 255
    own = {PREFIX + task: output.detach() for task, output in model.outputs(image).items()}
    losses = model(image, mode="loss", **own)
    assert all(losses[f"loss_{task}"].item() == pytest.approx(0, abs=1e-6) for task in model.model.tasks)


def test_confidence_filter_keeps_agreement_and_surer_experts():
    model, _ = build(filter="confidence", soft=False, balance="none", class_balance=0.0)
    ours = torch.tensor([[4.0, 0, 0, 0], [4.0, 0, 0, 0], [1.0, 0, 0, 0]]).T.reshape(1, 4, 1, 3)
    expert = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 3.0, 0, 0]]).T.reshape(1, 4, 1, 3)
    loss = model.task_losses({"segmentation": ours}, {"segmentation": expert})["segmentation"]
    logp = ours.log_softmax(1)[0, :, 0]
    assert loss.item() == pytest.approx(-(logp[0, 0] + logp[1, 2]).item() / 2)  # the middle pixel is dropped


def test_an_empty_selection_is_no_step():
    model, experts = build(filter="confidence", soft=False, learn_coefficients=False, balance="initial")
    model.active = ["segmentation"]
    data = batch(experts)
    outputs = model.outputs(data["image"])["segmentation"].detach()
    data[PREFIX + "segmentation"] = -outputs * 1e-3  # disagrees everywhere, with hardly any confidence
    total, logs = model.parse_losses(model(**data, mode="loss"))
    assert not total.requires_grad and logs["loss"].item() == 0

    class Refuses:
        def optim_context(self, _):
            return torch.enable_grad()

        def update_params(self, _):
            raise AssertionError("a step without anything to learn from")

    model.train_step(data, Refuses())


def test_dropout_is_off_and_batchnorm_on_while_adapting():
    model, _ = build(statistics="batch")
    model.train()
    assert all(layer.training for layer in batchnorms(model.model))
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.Dropout))
    running, _ = build(statistics="running")
    running.train()
    assert not any(layer.training for layer in batchnorms(running.model))


def test_every_round_of_the_per_task_schedule_serves_every_task_once():
    names = list(tiny.tasks())
    rounds = [[task_of(3 * r + i, names, seed=5) for i in range(3)] for r in range(20)]
    assert all(sorted(served) == sorted(names) for served in rounds)
    assert len({tuple(served) for served in rounds}) > 1


def test_an_unknown_layer_is_refused_with_names_that_exist():
    base, experts, _ = tiny.family()
    with pytest.raises(ValueError, match="pre_final"):
        SyMergeModel(base, experts, make_options(layer="prefinal"))


def test_only_losses_are_summed_whatever_a_task_is_called():
    model, _ = build()
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    total, logs = model.parse_losses({"loss_gloss": one, "loss_depth": two, "distance_gloss": torch.tensor(5.0)})
    assert total.item() == 3.0 and logs["loss"].item() == 3.0 and logs["distance_gloss"].item() == 5.0
