"""Units that may change places: an exchange changes no output, and every unit has what belongs to it."""

import pytest
import torch
import torch.nn.functional as F
from builders import tiny
from torch import nn

from symerge_dense.models.channel_layers import layer_of
from symerge_dense.models.channel_probe import ChannelProbe
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.units import _connected, unit_families
from symerge_dense.tasks.depth import Depth

SMALL = {"channels": (8, 16, 24, 32), "stem_width": 8}
GATED = {"name": "mobilenetv3_small_050", "out_indices": (0, 1, 2)}
NETWORKS = {
    "basic blocks": (tiny.CNN, "MultiScale"),
    "bottlenecks, DeepLab": ({"name": "resnet14t", **SMALL}, "DeepLab"),
    "grouped convolutions": ({"name": "resnet14t", **SMALL, "cardinality": 4, "base_width": 64}, "MultiScale"),
    "transformer": (tiny.VIT, "Linear"),
    "depthwise, gates": (GATED, "MultiScale"),
    "norms of channels": ({"name": "convnext_atto", "dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}, "MultiScale"),
    "global response norm": ({"name": "convnextv2_atto", "dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}, "MultiScale"),
}


def network(spec=tiny.CNN, head="MultiScale"):
    """A network in which no weight is 0 or 1 by construction, in float64."""
    torch.manual_seed(0)
    head = {"type": head} if isinstance(head, str) else head
    model = MultiTaskModel(tiny.backbone(spec), {"depth": head}, {"depth": Depth()}, **tiny.PREPROCESSING)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and (value.ndim == 1 or "pos_embed" in name or "cls_token" in name):
            nn.init.uniform_(value, 0.5, 1.5)
    return model.double().eval()


def output(model):
    image = torch.rand(2, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(1)).double() * 255
    with torch.no_grad():
        return model(image)["depth"]


def mixing(model):
    return {f"backbone.{n}.weight" for n, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


@pytest.mark.parametrize("name", NETWORKS)
def test_units_change_places_and_the_output_stays(name):
    model = network(*NETWORKS[name])
    before, state = output(model), model.state_dict()
    families = unit_families(model, tiny.SIZE)
    for family in families:
        family.reorder(state, torch.randperm(len(family)))
    moved = mixing(model) - {key for family in families for key, axis in family.places if axis == 0}
    changed = {key for key in mixing(model) if not torch.equal(state[key], model.state_dict()[key])}
    model.load_state_dict(state)
    torch.testing.assert_close(output(model), before, rtol=1e-9, atol=1e-9)
    assert moved == set() and len(changed) > len(mixing(model)) * 0.8


def places(model, name):
    """{(tensor, axis): indices} of the family that the entry ``name`` belongs to."""
    (found,) = [family for family in unit_families(model, tiny.SIZE) if (f"backbone.body.{name}", 0) in family.places]
    return {(key.removeprefix("backbone.body."), axis): value for (key, axis), value in found.places.items()}


def test_a_hidden_unit_of_an_mlp_has_its_row_bias_and_column():
    found = places(network(tiny.VIT), "model.blocks.1.mlp.fc1.weight")
    block = "model.blocks.1.mlp"
    assert set(found) == {(f"{block}.fc1.weight", 0), (f"{block}.fc1.bias", 0), (f"{block}.fc2.weight", 1)}
    assert all(value.tolist() == [[unit] for unit in range(96)] for value in found.values())


def test_an_attention_head_has_its_queries_keys_and_values():
    found = places(network(tiny.VIT), "model.blocks.0.attn.qkv.weight")
    wanted = [[part * 24 + head * 12 + channel for part in range(3) for channel in range(12)] for head in range(2)]
    assert found[("model.blocks.0.attn.qkv.weight", 0)].tolist() == wanted
    assert found[("model.blocks.0.attn.proj.weight", 1)].tolist() == [list(range(12)), list(range(12, 24))]


def test_a_channel_of_the_residual_stream_has_embeddings_norms_and_both_ends_of_each_block():
    found = places(network(tiny.VIT, "MultiScale"), "model.patch_embed.proj.weight")
    assert {("model.pos_embed", 2), ("model.cls_token", 2), ("model.blocks.2.norm1.weight", 0)} <= set(found)
    assert {("model.blocks.2.mlp.fc2.weight", 0), ("model.blocks.2.mlp.fc1.weight", 1)} <= set(found)
    assert ("heads.depth.laterals.0.weight", 1) in found and ("heads.depth.conv.weight", 0) not in found


def test_the_colours_of_the_image_and_the_channels_of_the_output_stay():
    families = unit_families(network(), tiny.SIZE)
    moved = {place for family in families for place in family.places}
    assert ("backbone.body.conv1.0.weight", 1) not in moved and ("heads.depth.predict.weight", 0) not in moved


class Mixing(nn.Module):
    """Sums over channels: which one is which shows in the output."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.out = nn.Conv2d(in_channels[-1], channels, 1)

    def forward(self, features):
        return self.out(features[-1].cumsum(1))


def test_what_a_head_mixes_in_an_unknown_way_stays_and_the_rest_moves():
    model = network(head=Mixing(tiny.backbone().channels, 1))
    moved = {place for family in unit_families(model, tiny.SIZE) for place in family.places}
    assert ("backbone.body.layer4.0.conv2.weight", 0) not in moved
    assert ("backbone.body.layer4.0.conv1.weight", 0) in moved


class OverImages(nn.Module):
    def __init__(self, in_channels, channels):
        super().__init__()
        self.out = nn.Conv2d(in_channels[-1], channels, 1)

    def forward(self, features):
        return self.out(features[-1].mean(0, keepdim=True))


def test_a_network_that_mixes_images_is_refused_by_the_name_of_the_module():
    with pytest.raises(ValueError, match=r"module heads\.depth\.module\.out is not given"):
        unit_families(network(head=OverImages(tiny.backbone().channels, 1)), tiny.SIZE)


def test_what_would_take_long_to_tell_apart_stays_and_the_rest_moves(monkeypatch):
    monkeypatch.setattr("symerge_dense.models.channel_probe.MOST", 0)
    model = network(tiny.VIT)
    before, state, families = output(model), model.state_dict(), unit_families(model, tiny.SIZE)
    assert sorted(len(family) for family in families) == [24, 96, 96, 96]  # no attention heads
    for family in families:
        family.reorder(state, torch.randperm(len(family)))
    model.load_state_dict(state)
    torch.testing.assert_close(output(model), before, rtol=1e-9, atol=1e-9)


def test_a_network_of_one_size_is_shown_its_own():
    model = network({**tiny.VIT, "dynamic_img_size": False})
    assert len(unit_families(model, tiny.SIZE)) == 7


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.BatchNorm2d(6), (1, 6, 6, 5), 1),
        (nn.LayerNorm(6), (1, 6, 5, 6), 3),
        (nn.GroupNorm(1, 6), (1, 6, 5, 4), 1),
        (nn.GroupNorm(2, 6), (1, 6, 5, 4), None),
        (nn.PReLU(6), (1, 6, 5, 4), 1),
        (nn.BatchNorm2d(2), (1, 2, 5, 4), 1),
    ],
)
def test_modules_that_treat_channels_alike_are_known_by_what_they_do(module, shape, axis):
    layer = layer_of("m", module.eval(), torch.Size(shape))
    assert (layer.axes[0] if layer else None) == axis


def test_a_dead_relu_hides_nothing():
    """Each squeezed channel is one number behind a ReLU, whatever the sign of its bias."""
    model = network(GATED)
    probe = ChannelProbe(model, (64, 96))
    name = next(name for name in probe.layers if name.endswith("se.conv_reduce"))
    ((_, made, read),) = [pairs for pairs in probe.reached(name) if pairs[1].numel()]
    assert made.tolist() == read.tolist() == list(range(probe.layers[name].counts[1]))
    assert bool((F.relu(probe._given(name, 0)) == 0).any())


def test_connected_nodes_are_one_unit():
    chain = [(node, node + 1) for node in range(40, 70)][::-1]  # listed against the order in which they join
    edges = torch.tensor([*chain, (2, 5), (5, 3), (9, 40), (8, 8)]).T
    found = _connected(edges, 72).tolist()
    assert found[2:6] == [2, 2, 4, 2] and set(found[40:71]) == {9} and found[71] == 71 and found[8] == 8
