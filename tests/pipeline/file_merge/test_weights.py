"""``merge`` in Python: one path with the command, for files, state dicts and networks, none of which is changed."""

import copy

import pytest
import torch
from builders import tiny
from builders.merge_checkpoints import Net, record, same, write_files
from builders.pipeline_tiny import tool
from safetensors.torch import load_file

from symerge_dense import merge
from symerge_dense.merging.tensor_specs import tensor_specs
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.registry import MERGERS


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


@pytest.fixture
def written(files):
    """What the command writes of the three files."""
    assert tool("merge.py", *files.arguments("ties", "--density", "0.3")) == 0
    return load_file(files.out)


def network(state):
    net = Net()
    net.load_state_dict(state)
    return net


FORMS = {
    "file": lambda files, name, state: str(files.folder / f"{name}.safetensors"),
    "path": lambda files, name, state: files.folder / f"{name}.safetensors",
    "state": lambda files, name, state: state,
    "checkpoint": lambda files, name, state: {"model_state_dict": state, "epoch": 3, "loss": torch.tensor(1.0)},
    "wrapped": lambda files, name, state: {f"module.{key}": value for key, value in state.items()},
    "module": lambda files, name, state: network(state),
    "parallel": lambda files, name, state: torch.nn.DataParallel(network(state)),
}


@pytest.mark.parametrize("base", FORMS)
@pytest.mark.parametrize("expert", ["file", "state", "module"])
def test_all_forms_give_what_the_command_writes(files, written, base, expert):
    experts = {name: FORMS[expert](files, name, state) for name, state in files.experts.items()}
    found = merge("ties", FORMS[base](files, "base", files.base), experts, density=0.3)
    if base in ("module", "parallel"):
        assert isinstance(found, (Net, torch.nn.DataParallel))
        found = {name.removeprefix("module."): value for name, value in found.state_dict().items()}
    assert same(found, written)


def test_experts_as_a_list_and_in_mixed_forms(files, written):
    mixed = [files.folder / "a.safetensors", network(files.experts["b"])]
    assert same(merge("ties", files.base, mixed, density=0.3), written)


def test_nothing_given_is_changed_and_memory_is_not_shared(files):
    base, experts = network(files.base), [network(state) for state in files.experts.values()]
    before = copy.deepcopy([module.state_dict() for module in (base, *experts)])
    found = merge("average", base.train(), experts)
    assert found is not base and found.training
    for value in found.parameters():
        value.data.fill_(7)
    plain = merge("average", files.base, files.experts)
    for value in plain.values():
        value.fill_(7)
    for module, state in zip((base, *experts), before, strict=True):
        assert same(module.state_dict(), state)
    assert not any((value == 7).all() for value in files.base.values() if value.is_floating_point())


def test_out_streams_to_a_file(files, written):
    path = files.folder / "python.safetensors"
    assert merge("ties", files.base, files.experts, out=path, density=0.3) is None
    assert same(load_file(path), written) and record(path)["base"] == [{"memory": True}]
    with pytest.raises(ValueError, match="exists; choose another name"):
        merge("ties", files.base, files.experts, out=path)
    merge("ties", files.base, files.experts, out=path, overwrite=True)
    assert not same(load_file(path), written)


def test_a_merger_may_be_given(files, written):
    assert same(merge(MERGERS["ties"](density=0.3), files.base, files.experts), written)
    with pytest.raises(ValueError, match="ties is built already; give it density"):
        merge(MERGERS["ties"](), files.base, files.experts, density=0.3)


def test_statistics_follow_the_policy_of_the_command(files):
    for policy in ("mean", "moments", "pretrained"):
        assert tool("merge.py", *files.arguments("average", "--statistics", policy, "--overwrite")) == 0
        assert same(merge("average", files.base, files.experts, statistics=policy), load_file(files.out))


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("tise", {}, "unknown merger 'tise'. Did you mean 'ties'"),
        ("ties", {"densty": 0.2}, "unknown option of ties 'densty'. Did you mean 'density'"),
        ("ties", {"density": 2}, "density is 2; it must lie in"),
        ("fisher", {}, "fisher needs fisher of every expert, which come from images.*compare"),
        ("regmean", {}, "regmean needs gram of every expert, which come from images"),
        ("regmean_pp", {}, "regmean_pp needs merged_gram of every expert, which come from images"),
        ("emr", {}, "emr gives every task weights of its own; name one with --task"),
        ("average", {"statistics": "meen"}, "Did you mean 'mean'"),
        ("average", {"key": "teacher"}, "unknown key 'teacher'"),
        ("average", {"prefix": "encoder."}, "no tensor name starts with 'encoder.'.*Its names: 9: conv.weight"),
    ],
)
def test_options_are_checked_as_on_the_command_line(files, method, more, words):
    with pytest.raises(ValueError, match=words):
        merge(method, files.base, files.experts, **more)


def test_experts_of_another_form_are_named(files):
    with pytest.raises(ValueError, match="experts is a state dict itself; give"):
        merge("average", files.base, files.experts["a"])
    with pytest.raises(ValueError, match="experts is one str; give a list"):
        merge("average", files.base, "a.safetensors")
    with pytest.raises(ValueError, match="there is no expert to merge"):
        merge("average", files.base, [])
    with pytest.raises(ValueError, match=r"a \(in memory\) holds quantised weights"):
        merge("average", files.base, {"a": {**files.experts["a"], "fc.weight": torch.ones(20, 30).char()}})
    with pytest.raises(ValueError, match=r"a holds 9: conv\.weight"):
        merge("average", {**files.base, "more.weight": torch.ones(2, 2)}, files.experts)


def test_one_task_of_a_method_that_gives_each_its_own(files):
    assert tool("merge.py", *files.arguments("emr", "--task", "b")) == 0
    assert same(merge("emr", files.base, files.experts, task="b"), load_file(files.out))


def test_models_of_this_package_are_merged_with_their_heads(tmp_path):
    base, experts, _ = tiny.family()
    for task, expert in experts.items():
        save_model(tmp_path / f"{task}.safetensors", expert)
    first, *rest = experts
    mixed = {first: tmp_path / f"{first}.safetensors", **{task: experts[task] for task in rest}}
    model = merge("ties", base, mixed, heads=True)
    assert isinstance(model, MultiTaskModel) and set(model.tasks) == set(experts) and not model.training
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 32, 32), mode="predict")[0]
    assert set(outputs) == set(experts)
    merge("ties", base, mixed, heads=True, out=tmp_path / "merged.safetensors")
    again, _ = load_model(tmp_path / "merged.safetensors")
    assert same(again.state_dict(), model.state_dict())
    backbone = merge("ties", base, mixed)
    assert type(backbone) is type(base) and same(backbone.state_dict(), model.backbone.state_dict())


def test_a_network_tells_the_kind_of_its_tensors(files):
    base = network(files.base)
    expected = MERGERS["lines"](beta=0.5)
    assert {spec.kind for spec in tensor_specs(base)} == {"conv", "vector", "norm", "bn_stat", "counter", "matrix"}
    found = merge(expected, base, files.experts)  # needs depth, which names alone do not tell
    assert not same(found.state_dict(), files.base)
    with pytest.raises(ValueError, match="lines scales by depth"):
        merge("lines", files.base, files.experts, beta=0.5)
