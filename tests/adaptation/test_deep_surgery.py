"""SurgeryV2 and ProbSurgery: corrections and losses by hand, passes per task, noise that depends on the step alone."""

import copy
import dataclasses

import pytest
import torch
from builders import tiny
from builders.adaptive_runs import setting, shared

from symerge_dense.adaptation.finalize import finalize, image_batches
from symerge_dense.adaptation.method import initial_merge, probe_image
from symerge_dense.adaptation.methods.prob_surgery import ProbSurgery, divergence
from symerge_dense.adaptation.methods.surgery_v2 import DeepTaskAdapted, SurgeryV2
from symerge_dense.adaptation.objective import VALID
from symerge_dense.models.modes import evaluating
from symerge_dense.registry import ADAPTIVE_METHODS

IMAGE = torch.rand(2, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(7)) * 255


def attached(method):
    student = method.student(shared())
    student.attach({task: expert.eval() for task, expert in shared().experts.items()})
    return student.train()


# -- SurgeryV2 --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT])
def test_corrections_of_a_block_enter_the_next_one_of_the_same_task_alone(tmp_path, spec):
    given = setting(tmp_path, spec)
    plain = initial_merge(given).eval()
    network = DeepTaskAdapted(copy.deepcopy(plain), probe_image(given), 4, seed=0).eval()
    before = plain(IMAGE)
    assert network.encoder_passes == 3 and plain.encoder_passes == 1
    assert all(torch.equal(value, before[task]) for task, value in network(IMAGE).items())
    own = network.blocks[0].adapters["depth"]
    torch.nn.init.normal_(own.up, generator=torch.Generator().manual_seed(1))

    def correct(_module, _inputs, z):  # by hand, on the plain network
        channels = z.movedim(1, -1) if z.ndim == 4 and not plain.backbone.channels_last else z
        shift = (channels @ own.down.T).relu() @ own.up.T
        return z - (shift.movedim(-1, 1) if channels is not z else shift)

    plain.backbone.get_submodule(network.block_names[0]).register_forward_hook(correct)
    found, wanted = network(IMAGE), plain(IMAGE)["depth"]
    torch.testing.assert_close(found["depth"], wanted)
    assert not torch.equal(found["depth"], before["depth"])
    assert torch.equal(found["normals"], before["normals"])
    assert torch.equal(copy.deepcopy(network)(IMAGE)["depth"], found["depth"])
    assert all(block.task is None for block in network.blocks)


def test_the_distance_is_the_mean_over_blocks_and_levels_and_adapters_lower_it():
    student = attached(SurgeryV2(lr=1e-2))
    expert = shared().experts["depth"]
    with torch.no_grad():
        ours, theirs = student.model.features(IMAGE), expert.features(IMAGE)  # a level is the output of a block here
    wanted = sum((a - b).abs().mean().item() for a, b in zip(ours, theirs, strict=True)) / 4
    first = student.distances(IMAGE, {})
    assert first["depth"].item() == pytest.approx(wanted, rel=1e-5)
    optimizer = torch.optim.Adam(student.parameter_groups())
    for _ in range(4):
        optimizer.zero_grad()
        sum(student.distances(IMAGE, {}).values()).backward()
        optimizer.step()
    trained = {name.split(".")[1] for name, p in student.named_parameters() if p.grad is not None}
    assert trained == {"adapters", "blocks"}
    last = student.distances(IMAGE, {})
    assert all(last[task] < first[task] for task in first)


def test_blocks_and_levels_count_alike_where_they_differ(tmp_path):
    given = setting(tmp_path, tiny.VIT)
    student = SurgeryV2().student(given)
    student.attach({task: expert.eval() for task, expert in given.experts.items()})
    names, seen = student.model.block_names, []
    for model in (initial_merge(given).eval(), given.experts["depth"].eval()):
        outputs = []
        for name in names:
            model.backbone.get_submodule(name).register_forward_hook(lambda *call, kept=outputs: kept.append(call[-1]))
        with torch.no_grad():
            levels = model.features(IMAGE)
        seen.append([*outputs, *levels])
    apart = [(ours - theirs).abs().mean().item() for ours, theirs in zip(*seen, strict=True)]
    wanted, of_blocks = sum(apart) / len(apart), sum(apart[: len(names)]) / len(names)
    assert student.distances(IMAGE, {})["depth"].item() == pytest.approx(wanted, rel=1e-5)
    assert of_blocks != pytest.approx(wanted, rel=1e-2)


# -- ProbSurgery ------------------------------------------------------------------------------------------------------
def test_the_divergence_from_a_standard_normal():
    """mu = 3, sigma = 1: 9 / 2. mu = 0, sigma^2 = 4: (4 - 1 - log 4) / 2. Summed over the two channels."""
    mean = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 3, 1)
    log_variance = torch.tensor([1.0, 4.0]).log().view(1, 2, 1, 1).expand(2, 2, 3, 1)
    assert divergence(mean, log_variance).item() == pytest.approx(4.5 + (3 - 1.3862944) / 2, rel=1e-6)
    assert divergence(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)) == 0


def test_noise_is_of_the_predicted_variance_and_the_mean_is_what_is_kept():
    """With the variance at nearly 0 the loss is Surgery's, of the network as it is at inference."""
    student = attached(ProbSurgery(kl_weight=0.0))
    with torch.no_grad(), evaluating(student.model):
        sizes = [level.square().mean().sqrt().item() for level in student.model.features(probe_image(shared()))]
    with torch.no_grad():
        for adapter in student.model.levels("depth").values():
            torch.nn.init.normal_(adapter.up, std=0.1, generator=torch.Generator().manual_seed(1))
        features, wanted = student.model.features(IMAGE), student.teachers["depth"].features(IMAGE)
        kept = student.model.task_features("depth", features)
        noisy = student.distances(IMAGE, {})["depth"].item()
        for level, adapter in student.model.levels("depth").items():
            code = adapter.code(features[level])
            spread = student.spreads["depth"][str(level)]
            spread.copy_(-40 / code.clamp(min=1e-3).mean() * torch.ones_like(spread))
        quiet = student.distances(IMAGE, {})["depth"].item()
    mean = sum((a - b).abs().mean().item() for a, b in zip(kept, wanted, strict=True)) / 4
    assert quiet == pytest.approx(mean, rel=0.05)
    assert list(student.units.values()) == pytest.approx(sizes, rel=1e-5)
    assert noisy > quiet + 0.2 * sum(sizes) / len(sizes)  # E|e| of N(0, 1) is 0.8, in units of the level


def test_the_divergence_enters_with_its_weight_and_in_units_of_the_level():
    """By hand, from the maps of code to mean and logarithm of the variance; the noise is that of seed and step."""
    weight, losses, parts = 0.5, [], []
    for kl_weight in (0.0, weight):
        student = attached(ProbSurgery(rank=4, kl_weight=kl_weight))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for level, adapter in student.model.levels("depth").items():
                for weights in (adapter.up, student.spreads["depth"][str(level)]):
                    torch.nn.init.normal_(weights, std=0.1, generator=generator)
            losses.append(student.distances(IMAGE, {})["depth"].item())
            features = student.model.features(IMAGE)
    for level, adapter in student.model.levels("depth").items():
        code = (features[level].movedim(1, -1) @ adapter.down.T).relu()
        mean = code @ adapter.up.T / student.units[level]
        log_variance = code @ student.spreads["depth"][str(level)].T
        parts.append((mean.square() + log_variance.exp() - log_variance - 1).sum(-1).mean().item() / 2)
    assert all(abs(unit - 1) > 0.05 for unit in student.units.values())
    assert losses[1] - losses[0] == pytest.approx(weight * sum(parts) / len(parts), rel=1e-4)


def test_noise_depends_on_seed_and_step_alone():
    student, other = attached(ProbSurgery()), attached(ProbSurgery())
    with torch.no_grad():
        first = student.distances(IMAGE, {})["depth"].item()
        torch.rand(3)
        assert other.distances(IMAGE, {})["depth"].item() == first == student.distances(IMAGE, {})["depth"].item()
        student.before_step(1, 6)
        assert student.distances(IMAGE, {})["depth"].item() != first
    learned = {id(p) for group in student.parameter_groups() for p in group["params"]}
    assert {id(p) for p in student.spreads.parameters()} < learned
    assert all(bool((p == 0).all()) for p in student.spreads.parameters())


@pytest.mark.parametrize("method", [ProbSurgery, SurgeryV2])
def test_images_that_the_expert_does_not_label_do_not_count(method):
    student = attached(method())
    first = student.distances(IMAGE[:1], {VALID + "depth": torch.tensor([[[False]]])})
    assert first["depth"].item() == 0 and first["depth"].requires_grad and first["normals"].item() > 0


# -- all methods that learn from features -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["surgery", "prob_surgery", "surgery_v2", "prodistill"])
def test_heads_that_are_not_asked_see_the_statistics_of_what_was_learned(name, tmp_path):
    context = setting(tmp_path)
    context.options = dataclasses.replace(context.options, statistics="running")
    adapted = ADAPTIVE_METHODS.build({"type": name}).run(context)
    before = {key: value.clone() for key, value in adapted.model.state_dict().items() if "running_" in key}
    student, options = adapted.student, adapted.student.options
    images = image_batches(context.pool, options.recalibration_images, options.batch_size, context.device)
    student.statistics_fixed.fill_(False)
    finalize(student, images)
    after = student.model.state_dict()
    assert any(".heads." in f".{key}" for key in before)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, msg=lambda text, key=key: key + text)
