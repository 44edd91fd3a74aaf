"""What every tensor is and how deep it lies, told by the module tree or by a bare state dict."""

from __future__ import annotations

from collections import Counter

import pytest
import timm
import torch
from torch import nn

from symerge_dense.merging.tensor_specs import TensorSpec, block_names, specs_from_state, tensor_specs, weights


def by_name(specs: list[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return timm.create_model("resnet18", features_only=True, pretrained=False)


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", features_only=True, pretrained=False, init_values=1e-5)


def test_resnet_kinds_follow_the_modules(resnet: nn.Module) -> None:
    specs = tensor_specs(resnet)
    assert [spec.name for spec in specs] == list(resnet.state_dict())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
    convs = sum(isinstance(module, nn.Conv2d) for module in resnet.modules())
    kinds = Counter(spec.kind for spec in specs)
    assert kinds == {"conv": convs, "norm": 2 * norms, "bn_stat": 2 * norms, "counter": norms}
    assert [spec.name for spec in weights(specs)] == [name for name, _ in resnet.named_parameters()]


def test_resnet_blocks_are_its_residual_blocks(resnet: nn.Module) -> None:
    specs = tensor_specs(resnet)
    expected = ["stem", *(f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1))]
    assert block_names(specs) == expected
    assert {spec.n_blocks for spec in specs} == {9}
    for spec in specs:
        in_stem = spec.name.startswith(("conv1", "bn1"))
        assert spec.block_name == ("stem" if in_stem else ".".join(spec.name.split(".")[:2]))
        assert expected[spec.block or 0] == spec.block_name


def test_vit_kinds_and_blocks(vit: nn.Module) -> None:
    specs = by_name(tensor_specs(vit))
    expected = {
        "model.cls_token": "embedding",
        "model.pos_embed": "embedding",
        "model.patch_embed.proj.weight": "conv",
        "model.patch_embed.proj.bias": "vector",
        "model.blocks.3.norm1.weight": "norm",
        "model.blocks.3.attn.qkv.weight": "matrix",
        "model.blocks.3.attn.qkv.bias": "vector",
        "model.blocks.3.ls1.gamma": "vector",
        "model.blocks.3.mlp.fc1.weight": "matrix",
    }
    assert {name: specs[name].kind for name in expected} == expected
    assert block_names(specs.values()) == ["stem", *(f"model.blocks.{number}" for number in range(12))]
    assert specs["model.pos_embed"].block == 0 and specs["model.blocks.11.mlp.fc2.weight"].block == 12


def test_stages_of_blocks_count_by_their_blocks() -> None:
    model = timm.create_model("convnext_atto", features_only=True, pretrained=False)
    specs = tensor_specs(model)
    names = block_names(specs)
    blocks = [f"stages_{stage}.blocks.{block}" for stage, depth in enumerate((2, 2, 6, 2)) for block in range(depth)]
    assert names[0] == "stem" and [name for name in names if ".blocks." in name] == blocks
    assert [name for name in names[1:] if ".blocks." not in name] == [f"stages_{s}.downsample" for s in (1, 2, 3)]
    numbers = [spec.block for spec in specs]
    assert numbers == sorted(number for number in numbers if number is not None)


def test_swin_tables_and_indices() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, depths=(1, 1, 2, 1), embed_dim=24)
    specs = by_name(tensor_specs(model))
    assert specs["layers.2.blocks.1.attn.relative_position_bias_table"].kind == "embedding"
    blocks = [name for name in block_names(specs.values()) if ".blocks." in name]
    assert blocks == [f"layers.{stage}.blocks.{block}" for stage, block in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))]
    assert specs["norm.weight"].block_name == "norm" and specs["norm.weight"].block == specs["norm.weight"].n_blocks - 2


class NormalTable(nn.Module):
    """A class that is no norm, though its name begins like one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))


class Odd(nn.Module):
    """Owners that a substring rule gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_proj = nn.Linear(4, 4)
        self.conv_like = nn.LayerNorm(4)
        self.table = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.deconv = nn.ConvTranspose1d(4, 4, 3)
        self.group = nn.GroupNorm(2, 4)
        self.normals = NormalTable()
        self.gamma = nn.Parameter(torch.ones(()))
        self.register_buffer("frequencies", torch.ones(4))
        self.register_buffer("index", torch.arange(4))


def test_owner_decides_not_the_name() -> None:
    specs = tensor_specs(Odd())
    assert {spec.name: spec.kind for spec in specs} == {
        "gamma": "vector",
        "frequencies": "counter",
        "index": "counter",
        "norm_proj.weight": "matrix",
        "norm_proj.bias": "vector",
        "conv_like.weight": "norm",
        "conv_like.bias": "norm",
        "table.weight": "embedding",
        "attention.in_proj_weight": "matrix",
        "attention.in_proj_bias": "vector",
        "attention.bias_k": "embedding",
        "attention.bias_v": "embedding",
        "attention.out_proj.weight": "matrix",
        "attention.out_proj.bias": "vector",
        "deconv.weight": "conv",
        "deconv.bias": "vector",
        "group.weight": "norm",
        "group.bias": "norm",
        "normals.weight": "embedding",
    }
    assert block_names(specs)[:3] == ["stem", "norm_proj", "conv_like"]  # no chain: every child is a block


def test_a_chain_of_blocks_at_the_root() -> None:
    block = lambda: nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})  # noqa: E731
    assert block_names(tensor_specs(nn.Sequential(block(), block()))) == ["0", "1"]


def test_a_composite_that_does_not_repeat_is_no_chain() -> None:
    block = lambda: nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})  # noqa: E731
    neck = nn.Sequential(nn.MultiheadAttention(2, 1))
    model = nn.ModuleDict({"neck": neck, "body": nn.ModuleList([block(), block()]), "head": nn.Linear(2, 2)})
    assert block_names(tensor_specs(model)) == ["stem", "body.0", "body.1", "head"]


@pytest.mark.parametrize("model", ["resnet", "vit"])
def test_a_bare_state_dict_tells_the_same_kinds(model: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(model)
    told = {spec.name: spec for spec in tensor_specs(module)}
    for spec in specs_from_state(module.state_dict()):
        other = told[spec.name]
        assert (spec.kind, spec.shape, spec.dtype) == (other.kind, other.shape, other.dtype)
        assert spec.block is None and spec.numel == module.state_dict()[spec.name].numel()
