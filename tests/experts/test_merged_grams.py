"""Gram matrices behind merged blocks: what each expert's block is given by the merged network before it."""

import copy

import pytest
import torch
from builders.tiny import CNN, SIZE, VIT, family

from symerge_dense.experts.statistics import collect, merged_grams
from symerge_dense.merging.methods.regmean_pp import RegMeanPP
from symerge_dense.merging.run import merge_state
from symerge_dense.merging.tensor_specs import block_names, tensor_specs
from symerge_dense.models.batchnorm import batchnorms
from symerge_dense.models.checkpoint import state_hash


class Case:
    """A tiny family, its blocks, and its merge by RegMean++."""

    def __init__(self, spec, tasks=3):
        self.base, experts, _ = family(spec, noise=0.1)
        self.experts = dict(list(experts.items())[:tasks])
        self.specs = tensor_specs(self.base)
        self.blocks = {b: [s.name for s in self.specs if s.block_name == b] for b in block_names(self.specs)}
        generator = torch.Generator().manual_seed(0)
        self.batches = [torch.rand(3, 3, *SIZE, generator=generator) * 255 for _ in range(2)]
        self.asked = []

    def merge(self, names, found):
        self.asked.append(list(names))
        chosen = [spec for spec in self.specs if spec.name in set(names)]

        def part(backbone):
            state = backbone.state_dict()
            return {spec.name: state[spec.name] for spec in chosen}

        experts = {task: part(expert.backbone) for task, expert in self.experts.items()}
        return merge_state(RegMeanPP(), part(self.base), experts, chosen, extras={"merged_gram": found})

    def grams(self):
        return merged_grams(self.experts, self.batches, self.blocks, self.merge)


@pytest.mark.parametrize("spec", [CNN, VIT], ids=["cnn", "vit"])
def test_a_block_sees_what_the_merged_blocks_before_it_put_out(spec):
    """W G W^T = sum of y y^T of the expert's last block, y behind the finished merge of all before."""
    case = Case(spec)
    found = case.grams()
    merged = case.merge([spec.name for spec in case.specs], found)
    with_matrices = [block for block, names in case.blocks.items() if set(names) & set(found["depth"])]
    last = with_matrices[-1]
    network = copy.deepcopy(case.experts["depth"])
    before = list(case.blocks)[: list(case.blocks).index(last)]
    network.backbone.load_state_dict(
        {name: merged[name] for block in before for name in case.blocks[block]}, strict=False
    )
    for layer in batchnorms(network):
        layer.training = True
    moments = {}
    for name in sorted(set(case.blocks[last]) & set(found["depth"])):

        def note(layer, inputs, output, name=name):
            if layer.bias is not None:
                output = output - (layer.bias[:, None, None] if output.ndim == 4 else layer.bias)
            flat = (output.movedim(1, -1) if output.ndim == 4 else output).flatten(0, -2).double()
            moments[name] = moments.get(name, 0) + flat.T @ flat

        network.backbone.get_submodule(name.removesuffix(".weight")).register_forward_hook(note)
    with torch.no_grad():
        for batch in case.batches:
            network.features(batch)
    assert moments
    for name, moment in moments.items():
        weight = case.experts["depth"].backbone.state_dict()[name].flatten(1).double()
        wanted = weight @ found["depth"][name].double() @ weight.T
        torch.testing.assert_close(wanted, moment, rtol=1e-3, atol=1e-4 * float(moment.abs().max()))


def test_first_layers_see_the_images_and_later_ones_not_what_their_expert_makes_of_them():
    case = Case(CNN)
    found, plain = case.grams(), collect("gram", case.experts, case.batches)
    first = next(iter(plain["depth"]))
    assert found.keys() == plain.keys() and all(found[task].keys() == plain[task].keys() for task in plain)
    assert torch.equal(found["depth"][first], plain["depth"][first])
    assert not any(torch.allclose(found["depth"][name], plain["depth"][name]) for name in list(plain["depth"])[3:])


def test_it_merges_everything_once_then_block_after_block_and_leaves_experts_alone():
    case = Case(VIT)
    before = {task: state_hash(expert.state_dict()) for task, expert in case.experts.items()}
    modes = {task: [module.training for module in expert.modules()] for task, expert in case.experts.items()}
    case.grams()
    everything, *each = case.asked
    assert sorted(everything) == sorted(spec.name for spec in case.specs)
    assert each == [names for names in case.blocks.values() if names in each] and len(each) > 2
    assert before == {task: state_hash(expert.state_dict()) for task, expert in case.experts.items()}
    assert modes == {task: [module.training for module in expert.modules()] for task, expert in case.experts.items()}


def test_one_expert_comes_back():
    case = Case(CNN, tasks=1)
    (expert,) = case.experts.values()
    merged = case.merge([spec.name for spec in case.specs], case.grams())
    names = [name for name, _ in expert.backbone.named_parameters()]
    assert all(torch.equal(merged[name], expert.backbone.state_dict()[name]) for name in names)
