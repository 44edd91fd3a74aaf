"""What each adaptive method does that the others do not: what moves, what must not, and its formula by hand."""

import copy

import pytest
import torch
from builders import tiny
from builders.adaptive_runs import again, once, setting, shared

from symerge_dense.adaptation.low_rank import BlockAdapted, LowRank, TaskAdapted, block_shapes
from symerge_dense.adaptation.method import initial_merge, probe_image
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.models.modes import output_at
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import ADAPTIVE_METHODS
from symerge_dense.tasks.edges import Edges

LAYER = {"conv.weight", "norm.weight", "norm.bias"}
HEAD = {name for name, _ in tiny.expert("depth", tiny.backbone(), 0).heads["depth"].named_parameters()}
# {method: (what the backbone is in the end, what of the heads has moved)}
MOVES = {
    "symerge": ("moved", LAYER),
    "symerge_coefficients": ("moved", set()),
    "symerge_layer": ("initial", LAYER),
    "layer_on_base": ("base", LAYER),
    "head_distillation": ("initial", HEAD),
    "full_distillation": ("moved", HEAD),
    "adamerging_task": ("moved", set()),
    "adamerging": ("moved", set()),
    "adamerging_pp": ("moved", set()),
    "surgery": ("initial", set()),
    "prodistill": ("moved", set()),
    "frank_wolfe": ("moved", set()),
    "samerging": ("moved", set()),
    "adarank": ("moved", set()),
    "prob_surgery": ("initial", set()),
    "surgery_v2": ("initial", set()),
    "simo_representation": ("initial", HEAD),
}


def weights(module):
    return dict(module.named_parameters())


def student(name, **arguments):
    """A method's student with the experts attached, and one batch with expert labels."""
    made = ADAPTIVE_METHODS.build({"type": name, **arguments}).student(shared())
    experts = {task: expert.eval() for task, expert in shared().experts.items()}
    made.attach(experts)
    return made, batch(experts)


def batch(experts, count=4):
    torch.manual_seed(7)
    image = torch.rand(count, 3, *tiny.SIZE) * 255
    with torch.no_grad():
        return {"image": image, **{PREFIX + task: e(image, mode="tensor")[task] for task, e in experts.items()}}


@pytest.mark.parametrize("name", MOVES)
def test_what_learns_has_moved_and_nothing_else(name):
    model, (backbone, moved) = once(name).model, MOVES[name]
    origin = {"base": shared().base, "initial": initial_merge(shared()).backbone}
    for where, start in origin.items():
        equal = [torch.equal(value, model.backbone.get_parameter(key)) for key, value in weights(start).items()]
        assert all(equal) == (backbone == where)
        assert backbone != "moved" or sum(equal) < len(equal) / 2
    for task, expert in shared().experts.items():
        changed = {
            key
            for key, value in weights(expert.heads[task]).items()
            if not torch.equal(value, model.heads[task].get_parameter(key))
        }
        assert changed == moved, task


def test_the_initial_merge_is_task_arithmetic():
    merged, base = initial_merge(shared()), weights(shared().base)
    for key, value in weights(merged.backbone).items():
        deltas = [weights(expert.backbone)[key] - base[key] for expert in shared().experts.values()]
        torch.testing.assert_close(value, base[key] + 0.3 * sum(deltas))


# -- AdaMerging -------------------------------------------------------------------------------------------------------
def test_entropy_is_that_of_the_merged_models_own_distribution_and_other_tasks_have_labels():
    made, data = student("adamerging")
    outputs = made.outputs(data["image"])
    distances = made.distances(data["image"], data)
    p = outputs["segmentation"].double().exp()
    p = p / p.sum(1, keepdim=True)
    assert distances["segmentation"].item() == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-5)
    l1 = (outputs["depth"] - data[PREFIX + "depth"]).abs().mean()
    assert distances["depth"].item() == pytest.approx(l1.item(), rel=1e-5)
    steps = shared().options.rounds
    assert once("adamerging").note == f"depth, normals: expert labels (no entropy); {steps} steps, 500 in the paper"


def test_entropy_falls_where_it_is_all_there_is(tmp_path):
    given = setting(tmp_path, rounds=18)
    given.experts = {"segmentation": given.experts["segmentation"]}
    adapted = ADAPTIVE_METHODS["adamerging"](coefficient_lr=5e-2, clamp=None).run(given)
    entropy = [row["distance_segmentation"] for row in adapted.history]
    assert sum(entropy[-3:]) < sum(entropy[:3]) and adapted.note == "18 steps, 500 in the paper"


def test_a_bernoulli_entropy_counts_too():
    base = tiny.backbone()
    heads = {"edges": {"type": "MultiScale", "width": 8}}
    expert = MultiTaskModel(base, heads, {"edges": Edges()}, **tiny.PREPROCESSING).eval()
    made = SyMergeModel(base, {"edges": expert}, make_options(objective="entropy"))
    logit = torch.tensor([[[[0.0, 2.0, -3.0]]]])
    p = logit.double().sigmoid()
    wanted = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    found = made.task_losses({"edges": logit}, {"edges": -logit})["edges"]
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_task_wise_has_one_coefficient_a_task_and_layer_wise_one_a_tensor():
    tensors = len(list(shared().base.parameters()))
    for name, rows in (("adamerging_task", 1), ("adamerging", tensors), ("adamerging_pp", tensors)):
        made, _ = student(name)
        assert made.merge.coefficients.shape == (rows, 3) and (made.merge.coefficients == 0.3).all()


def test_plus_plus_weighs_a_fifth_of_each_task_vector_with_the_signs_that_won():
    whole, _ = student("adamerging")
    elected, _ = student("adamerging_pp")
    count = sum(spec.numel for spec in whole.merge.specs)
    split = [3 * spec.numel for spec in whole.merge.specs]
    full, kept = (
        torch.cat([part.view(3, -1) for part in made.merge.vectors.split(split)], 1) for made in (whole, elected)
    )
    for row in kept:
        assert 0.05 * count < row.count_nonzero() <= 0.2 * count + 1
    assert torch.equal(kept, torch.where(kept != 0, full, 0.0))
    assert (kept.sign().sum(0).abs() == (kept != 0).sum(0)).all()  # no weight is pulled both ways


# -- Representation Surgery and SIMO ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [TaskAdapted, BlockAdapted])
@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT])
def test_new_adapters_change_nothing_and_trained_ones_follow_the_formula(tmp_path, kind, spec):
    given = setting(tmp_path, spec)
    plain, image = initial_merge(given).eval(), torch.rand(2, 3, *tiny.SIZE) * 255
    network = kind(copy.deepcopy(plain), probe_image(given), 16, seed=0).eval()
    before = plain(image)
    assert all(torch.equal(value, before[task]) for task, value in network(image).items())
    adapters = [module for module in network.adapters.modules() if isinstance(module, LowRank)]
    for adapter in adapters:
        torch.nn.init.normal_(adapter.up)
    assert len(adapters) == (4 if spec is tiny.CNN else 3) * (3 if kind is TaskAdapted else 1)
    if kind is TaskAdapted:
        level, features = 2, plain.features(image)
        own = network.adapters["depth"][str(level)]
        low = torch.einsum("rc,nchw->nrhw", own.down, features[level]).relu()
        wanted = features[level] - torch.einsum("cr,nrhw->nchw", own.up, low)
        torch.testing.assert_close(network.task_features("depth", features)[level], wanted)
    else:
        name, shape = next(iter(block_shapes(plain, image).items()))
        z = output_at(plain.backbone.get_submodule(name), lambda: plain.features(image))
        axis = 1 if len(shape) == 4 else 2
        wanted = z.movedim(axis, -1) @ adapters[0].down.T @ adapters[0].up.T + z.movedim(axis, -1)
        block = network.backbone.get_submodule(name)
        found = [None]
        block.register_forward_hook(lambda _m, _i, output: found.__setitem__(0, output))
        network.features(image)
        torch.testing.assert_close(found[0], wanted.movedim(-1, axis))
    assert any(not torch.equal(value, before[task]) for task, value in network(image).items())


def test_adapters_are_drawn_by_the_seed_whatever_was_drawn_before():
    def drawn(seed):
        torch.rand(1)
        network = TaskAdapted(initial_merge(shared()), probe_image(shared()), 16, seed)
        return torch.cat([part.down.flatten() for part in network.adapters.modules() if isinstance(part, LowRank)])

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_levels_that_a_head_does_not_read_get_no_adapter():
    torch.manual_seed(0)
    tasks = {"depth": tiny.tasks()["depth"]}
    model = MultiTaskModel(tiny.backbone(), {"depth": {"type": "DeepLab"}}, tasks, **tiny.PREPROCESSING)
    network = TaskAdapted(model, torch.rand(1, 3, *tiny.SIZE), 16, seed=0)
    assert list(network.levels("depth")) == [3] and network.adapters["depth"]["3"].down.shape == (16, 32)


def test_surgery_learns_the_l1_distance_of_features():
    made, data = student("surgery")
    made.train()
    expert = shared().experts["depth"]
    with torch.no_grad():
        ours, theirs = made.model.features(data["image"]), expert.features(data["image"])
    wanted = sum((a - b).abs().mean().item() for a, b in zip(ours, theirs, strict=True)) / 4
    assert made.distances(data["image"], {})["depth"].item() == pytest.approx(wanted, rel=1e-5)
    sum(made.distances(data["image"], {}).values()).backward()
    trained = {key for key, p in made.named_parameters() if p.grad is not None}
    assert trained == {key for key, _ in made.named_parameters() if key.startswith("model.adapters")}


def test_a_network_with_adapters_survives_a_copy_and_says_that_it_has_no_file():
    model, image = once("simo_representation").model, torch.rand(2, 3, *tiny.SIZE) * 255
    twin = copy.deepcopy(model)
    before = model(image)
    assert all(torch.equal(value, before[task]) for task, value in twin(image).items())
    with torch.no_grad():
        for parameter in twin.adapters.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[task]) for task, value in model(image).items())
    assert not torch.equal(twin(image)["depth"], before["depth"])
    with pytest.raises(ValueError, match="no model file"):
        _ = model.spec


# -- ProDistill -------------------------------------------------------------------------------------------------------
def test_every_block_has_its_turn_and_only_its_coefficients_learn():
    made, data = student("prodistill")
    assert made.blocks == [f"body.layer{number}.0" for number in range(1, 5)]
    turns = []
    for step in range(12):
        made.before_step(step, 12)
        turns.append(made.stage)
    assert turns == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    made.before_step(7, 12)
    sum(made.distances(data["image"], {}).values()).backward()
    trained = [spec.name for spec, p in zip(made.specs, made.merge.coefficients, strict=True) if p.grad is not None]
    assert trained == [spec.name for spec in made.specs if spec.name.startswith("body.layer3.0.")]


def test_a_blocks_distance_is_that_of_merged_and_expert_features_each_on_its_own_way():
    made, data = student("prodistill")
    made.eval()
    made.before_step(5, 12)
    with torch.no_grad():
        for p in made.merge.coefficients:
            p.uniform_(0, 1)
    found = made.distances(data["image"], {})
    made.fold()
    second = 1  # of four levels, each the output of one block here
    with torch.no_grad():
        ours = made.model.features(data["image"])[second]
        for task, expert in shared().experts.items():
            wanted = (ours - expert.features(data["image"])[second]).square().sum()
            assert found[task].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_small_task_vectors_do_not_stop_the_optimizer(tmp_path):
    given = setting(tmp_path, tiny.CNN, rounds=4, statistics="running")
    for expert in given.experts.values():
        with torch.no_grad():
            for name, value in expert.backbone.named_parameters():
                value.copy_(torch.lerp(given.base.state_dict()[name], value, 1e-2))
    made = ADAPTIVE_METHODS["prodistill"]().student(given)
    made.attach(given.experts)
    (group,) = made.parameter_groups()
    optimizer = torch.optim.Adam(**{"params": group["params"], "lr": group["lr"]})
    sum(made.distances(batch(given.experts)["image"], {}).values()).backward()
    optimizer.step()
    moved = torch.cat([(p - 0.3).abs().flatten() for p in made.merge.coefficients if p.grad is not None])
    assert moved.median() > 0.5 * group["lr"]  # Adam's first step is the rate where its epsilon does not count


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT])
def test_blocks_come_nearer_to_the_experts_and_the_stem_stays(tmp_path, spec):
    given = setting(tmp_path, spec, rounds=36, statistics="running")
    adapted = ADAPTIVE_METHODS["prodistill"](lr=0.1).run(given)
    initial = weights(initial_merge(given).backbone)
    for key, value in weights(adapted.model.backbone).items():
        in_block = "layer" in key or "blocks" in key
        assert in_block or torch.allclose(value, initial[key], rtol=1e-5, atol=1e-7), key
    for stage in {row["block"] for row in adapted.history}:
        rows = [row for row in adapted.history if row["block"] == stage]
        first, last = (
            sum(row[f"distance_{task}"] for row in part for task in tiny.tasks()) for part in (rows[:3], rows[-3:])
        )
        assert last < first, stage


# -- options ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "adapters"), [("adamerging_pp", 0), ("full_distillation", 0), ("surgery", 9), ("simo_representation", 3)]
)
def test_transformers_are_adapted_too(tmp_path, name, adapters):
    adapted = ADAPTIVE_METHODS[name]().run(setting(tmp_path, tiny.VIT, rounds=3))
    assert len(adapted.history) == 3
    assert adapted.extra_parameters == adapters * 2 * 16 * tiny.VIT["embed_dim"]


def test_an_odd_setting_is_served(tmp_path):
    paper = {"preset": "paper", "rounds": 1, "batch_size": 4, "clamp": (0.2, 0.5), "learn_coefficients": False}
    given = setting(tmp_path, **paper)
    for name in ("layer_on_base", "prodistill", "surgery"):
        adapted = ADAPTIVE_METHODS[name]().run(given)
        assert len(adapted.history) == (1 if name == "prodistill" else 3)  # one step a task and round


def test_each_part_has_its_learning_rate():
    for spec, wanted in (
        ({"type": "full_distillation"}, [3e-4, 1e-3]),
        ({"type": "full_distillation", "backbone_lr": 1e-5, "head_lr": 0.5}, [1e-5, 0.5]),
        ({"type": "head_distillation"}, [1e-3]),
        ({"type": "adamerging"}, [1e-3]),
        ({"type": "samerging"}, [3e-3]),
        ({"type": "surgery", "lr": 0.1}, [0.1]),
        ({"type": "prob_surgery", "lr": 0.2}, [0.2, 0.2]),
        ({"type": "surgery_v2"}, [1e-3, 1e-3]),
        ({"type": "adarank"}, [1e-2]),
        ({"type": "prodistill"}, [1e-2]),
        ({"type": "simo_representation", "lr": 0.2, "head_lr": 0.3}, [0.2, 0.3]),
        ({"type": "symerge"}, [shared().options.coefficient_lr, shared().options.layer_lr]),
    ):
        assert [group["lr"] for group in ADAPTIVE_METHODS.build(spec).student(shared()).parameter_groups()] == wanted


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"objective": "entropi"}, "Did you mean 'entropy'"),
        ({"density": 0.0}, r"density=0.0 must lie in \(0, 1\]"),
        ({"density": 1.5}, "density=1.5"),
    ],
)
def test_bad_options_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        make_options(**arguments)


def test_the_setting_is_not_changed_by_a_run():
    options = shared().options
    again("layer_on_base")
    assert shared().options is options and options.initial == 0.3
