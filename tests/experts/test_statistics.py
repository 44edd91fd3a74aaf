"""Fisher information and Gram matrices of experts, against sums over pixels and against what layers put out."""

import pytest
import torch
from builders.tiny import CNN, PREPROCESSING, SIZE, VIT, backbone, expert, family
from timm.layers import Conv2dSame
from torch.func import functional_call, jacfwd

from symerge_dense.experts import statistics as expert_statistics
from symerge_dense.experts.statistics import collect
from symerge_dense.merging.methods.fisher import Fisher
from symerge_dense.merging.methods.regmean import RegMean
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.models.checkpoint import state_hash
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.tasks.edges import Edges

DRAWS = 250


def images(count, seed=0):
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 255


def expert_of(task):
    if task != "edges":
        return expert(task, backbone(), 1)
    torch.manual_seed(1)
    head = {"type": MultiScale, "width": 8}
    return MultiTaskModel(backbone(), {"edges": head}, {"edges": Edges()}, **PREPROCESSING).eval()


def exact_fisher(task, model, name, image):
    """E_y [(d log p(y|x) / d theta)^2] of one tensor, from the Jacobian of the outputs: sums instead of draws."""

    def outputs(value):
        return functional_call(model, {f"backbone.{name}": value}, (image,), {"mode": "tensor"})[task].flatten(2)[0]

    weight = dict(model.backbone.named_parameters())[name].detach()
    output, jacobian = outputs(weight).detach(), jacfwd(outputs)(weight).detach()  # (C,P), (C,P,numel)
    if task == "segmentation":
        p = output.softmax(0)[..., None]
        return (p * (jacobian - (p * jacobian).sum(0)).square()).sum((0, 1))
    p = output.sigmoid()[..., None]
    variance = p * (1 - p) if task == "edges" else torch.ones(())
    return (variance * jacobian.square()).sum((0, 1))


@pytest.mark.parametrize("task", ["segmentation", "depth", "normals", "edges"])
def test_fisher_is_the_expected_square_of_the_score(task):
    model, image = expert_of(task), images(1)
    name = [name for name, weight in model.backbone.named_parameters() if weight.ndim == 1][-1]
    exact = exact_fisher(task, model, name, image)
    drawn = collect("fisher", {task: model}, list(image.repeat(DRAWS, 1, 1, 1).split(50)))[task][name]
    assert exact.sum() > 0
    torch.testing.assert_close(drawn.sum(), exact.sum(), rtol=0.12, atol=0)
    torch.testing.assert_close(drawn, exact, rtol=0.6, atol=float(exact.max()) * 0.05)


def test_fisher_takes_every_image_for_itself():
    model, batch = expert_of("depth"), images(5)
    together = collect("fisher", {"depth": model}, [batch[:3], batch[3:]], seed=3)["depth"]
    generator, total = torch.Generator().manual_seed(3), {}
    for image in batch.split(1):
        output = model(image, mode="tensor")["depth"]
        noise = torch.randn(output.shape, generator=generator)
        model.zero_grad()
        (output * noise).sum().backward()  # the gradient of -(output - (output + noise))^2 / 2 at the output
        for name, weight in model.backbone.named_parameters():
            total[name] = total.get(name, 0) + weight.grad.square() / 5
    assert set(together) == set(total)
    for name, expected in total.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-4, atol=1e-7 + 1e-5 * float(expected.max()))


def test_fisher_follows_the_seed_and_gram_does_not():
    experts, batch = {"depth": expert_of("depth")}, [images(2)]
    for what in ("fisher", "gram"):
        first, again, other = (collect(what, experts, batch, seed)["depth"] for seed in (0, 0, 1))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert all(torch.equal(first[name], other[name]) for name in first) == (what not in expert_statistics.SAMPLED)


@pytest.mark.parametrize("spec", [CNN, VIT], ids=["cnn", "vit"])
def test_gram_gives_the_second_moments_of_what_a_layer_puts_out(spec):
    """W G W^T = sum of y y^T: true only where the columns of W and the rows of G have one order."""
    model, batches = expert("depth", backbone(spec), 1), [images(2), images(1, seed=1)]
    grams = collect("gram", {"depth": model}, batches)["depth"]
    layers = {
        name: layer
        for name, layer in model.backbone.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert set(grams) == {f"{name}.weight" for name in layers} and len(grams) > 8
    moments = {}
    for name, layer in layers.items():

        def note(layer, inputs, output, name=name):
            if layer.bias is not None:
                output = output - (layer.bias[:, None, None] if output.ndim == 4 else layer.bias)
            flat = (output.movedim(1, -1) if output.ndim == 4 else output).flatten(0, -2).double()
            moments[name] = moments.get(name, 0) + flat.T @ flat

        layer.register_forward_hook(note)
    with torch.no_grad():
        for batch in batches:
            model.features(batch)
    for name, layer in layers.items():
        matrix, gram = layer.weight.detach().flatten(1).double(), grams[f"{name}.weight"].double()
        assert torch.equal(gram, gram.T)
        scale = float(moments[name].abs().max())
        torch.testing.assert_close(matrix @ gram @ matrix.T, moments[name], rtol=1e-3, atol=1e-4 * scale)


def test_layers_without_a_plain_matrix_have_no_gram(monkeypatch):
    model = expert_of("depth")
    every = collect("gram", {"depth": model}, [images(1)])["depth"]
    widths = sorted(len(gram) for gram in every.values())
    monkeypatch.setattr(expert_statistics, "LARGEST_GRAM", widths[len(widths) // 2])
    small = collect("gram", {"depth": model}, [images(1)])["depth"]
    assert set(small) == {name for name, gram in every.items() if len(gram) <= widths[len(widths) // 2]} != set(every)
    name = next(
        name
        for name, layer in model.backbone.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and f"{name}.weight" in small
    )
    old = model.backbone.get_submodule(name)
    same = Conv2dSame(old.in_channels, old.out_channels, old.kernel_size, old.stride, bias=False)  # pads by itself
    model.backbone.set_submodule(name, same)
    assert set(collect("gram", {"depth": model}, [images(1)])["depth"]) == set(small) - {f"{name}.weight"}


@pytest.mark.parametrize("what", ["fisher", "gram"])
def test_experts_stay_as_they_are(what):
    model = expert_of("segmentation").train()
    model.backbone.requires_grad_(False)
    before, modes = state_hash(model.state_dict()), [module.training for module in model.modules()]
    found = collect(what, {"segmentation": model}, [images(2)])["segmentation"]
    assert state_hash(model.state_dict()) == before and [module.training for module in model.modules()] == modes
    assert all(weight.grad is None for weight in model.parameters())
    assert all(not weight.requires_grad for weight in model.backbone.parameters())
    assert all(not value.requires_grad and bool(value.isfinite().all()) for value in found.values())
    assert any(bool(value.any()) for value in found.values())


def test_mergers_take_them_as_they_come():
    base, experts, _ = family(CNN)
    batches, specs = [images(4)], tensor_specs(base)
    states = {task: model.backbone.state_dict() for task, model in experts.items()}
    grams = collect("gram", experts, batches)
    merged = merge_state(RegMean(rho=1.0), base.state_dict(), states, specs, extras={"gram": grams})
    assert all(bool(value.isfinite().all()) for value in merged.values())
    name = next(spec.name for spec in specs if spec.kind == "conv")  # the first: all experts see the same images
    mean = torch.stack([state[name] for state in states.values()]).mean(0)

    def error(weight):
        """sum_t ||(W - W_t) X_t||^2"""
        gaps = {task: (weight - state[name]).flatten(1).double() for task, state in states.items()}
        return sum(float((gap @ grams[task][name].double() * gap).sum()) for task, gap in gaps.items())

    assert error(merged[name]) <= error(mean) * (1 + 1e-6)
    fisher = collect("fisher", experts, batches)
    merged = merge_state(Fisher(), base.state_dict(), states, specs, extras={"fisher": fisher})
    assert all(bool(value.isfinite().all()) for value in merged.values())


def test_another_statistic_is_refused():
    with pytest.raises(ValueError, match=r"'fishr'.*Did you mean 'fisher'"):
        collect("fishr", {}, [])
