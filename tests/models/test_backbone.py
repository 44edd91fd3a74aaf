"""The shared backbone: shapes, torchvision's dilation, and how base weights get in."""

import json

import pytest
import timm
import torch
import torchvision
from builders.tiny import CNN, PREPROCESSING, SIZE, VIT
from safetensors.torch import save_file
from torchvision.models._utils import IntermediateLayerGetter

from symerge_dense.models.backbone import TimmBackbone, load_base, load_weights
from symerge_dense.models.checkpoint import save_model, state_hash
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.tasks.depth import Depth

SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "img_size": (56, 84),
    "embed_dim": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 1, 1],
}


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (CNN, SIZE),
        ({"name": "resnet18"}, (32, 64)),
        (VIT, SIZE),
        ({"name": "convnext_atto"}, (32, 64)),
        (SWIN, (56, 84)),
    ],
)
def test_features_have_the_channels_and_strides_that_are_announced(spec, size):
    backbone = TimmBackbone(**spec).eval()
    features = backbone(torch.rand(2, 3, *size))
    expected = [
        (2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert [tuple(f.shape) for f in features] == expected


def test_default_levels():
    assert TimmBackbone(**CNN).strides == [4, 8, 16, 32]
    assert TimmBackbone(**VIT).out_indices == [0, 1, 2]  # no four blocks in it
    assert TimmBackbone(**{**VIT, "depth": 12}).out_indices == [2, 5, 8, 11]
    assert TimmBackbone(**{**VIT, "depth": 12, "out_indices": [3, 11]}).out_indices == [3, 11]


@pytest.mark.parametrize("spec", [CNN, VIT, {"name": "resnet26", "output_stride": 16, "out_indices": [2, 4]}])
def test_the_spec_builds_the_same_network_again(spec):
    backbone = TimmBackbone(**spec)
    again = TimmBackbone(**json.loads(json.dumps(backbone.spec)))
    assert again.spec == backbone.spec
    again.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, *SIZE)
    for one, other in zip(backbone.eval()(image), again.eval()(image), strict=True):
        assert torch.equal(one, other)


def test_a_dilated_resnet_is_torchvisions(tmp_path):
    """Stride 8 with torchvision's weights file gives the maps that torchvision gives."""
    reference = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
    backbone = TimmBackbone("resnet50", output_stride=8)
    load_base(backbone, checkpoint=tmp_path / "resnet50.pth")
    assert backbone.strides == [4, 8, 8, 8]
    layers = IntermediateLayerGetter(reference, {f"layer{i}": str(i) for i in (1, 2, 3, 4)}).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone.eval()(image), layers(image).values(), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet5o"}, ["resnet5o", "resnet50"]),
        ({"name": "hf-hub:someone/else"}, ["unknown timm model"]),
        ({"name": "resnet18", "checkpoint_path": "x"}, ["checkpoint_path", "load_base"]),
        ({"name": "resnet18", "pretrained": True}, ["pretrained", "load_base"]),
        ({"name": "resnet18", "img_size": (32, 32)}, ["img_size", "resnet18"]),
        ({"name": "resnet18", "output_stride": 7}, ["output_stride", "7"]),
        ({"name": "resnet18", "out_indices": [9]}, ["resnet18", "9"]),
        ({"name": "resnet18", "act_layer": torch.nn.GELU}, ["act_layer"]),
        ({**VIT, "img_size": (30, 48)}, ["(30, 48)", "(8, 8)", "24 or 32 high"]),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError) as error:
        TimmBackbone(**options)
    assert all(word in str(error.value) for word in words), error.value


# -- base weights -----------------------------------------------------------------------------------------------------
def complete(spec):
    """The whole timm network, with its classifier, and random statistics."""
    options = {key: value for key, value in spec.items() if key != "name"}
    torch.manual_seed(5)
    return timm.create_model(spec["name"], **options)


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize(("spec", "unused"), [(CNN, ["fc.weight", "fc.bias"]), (VIT, ["norm.weight", "head.bias"])])
def test_a_timm_checkpoint_fills_the_backbone(spec, unused, nest, tmp_path, capsys):
    state = complete(spec).state_dict()
    torch.save(state if nest is None else {nest: state, "epoch": 3}, tmp_path / "base.pth")
    backbone = TimmBackbone(**spec)
    digest = load_base(backbone, checkpoint=tmp_path / "base.pth")
    assert digest == state_hash(backbone.state_dict()) and len(digest) == 64
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[name.removeprefix("body.").removeprefix("model.")])
    printed = capsys.readouterr().out
    assert "missing 0, unexpected 0, dropped" in printed and all(name in printed for name in unused)


def test_layers_with_joined_names_are_found(tmp_path):
    state = complete(SWIN).state_dict()
    save_file(state, tmp_path / "swin.safetensors")
    backbone = TimmBackbone(**SWIN)
    load_base(backbone, checkpoint=tmp_path / "swin.safetensors")
    ours = backbone.state_dict()["body.layers_1.blocks.0.mlp.fc1.weight"]
    assert torch.equal(ours, state["layers.1.blocks.0.mlp.fc1.weight"])


def test_a_position_embedding_of_another_grid_is_resampled(tmp_path):
    model = complete({**VIT, "img_size": (64, 64)})
    with torch.no_grad():
        model.pos_embed[:, 1:] = 3.0
    torch.save(model.state_dict(), tmp_path / "square.pth")
    backbone = TimmBackbone(**VIT)
    load_base(backbone, checkpoint=tmp_path / "square.pth")
    embedding = backbone.body.model.pos_embed
    assert embedding.shape[1] == 1 + 4 * 6
    torch.testing.assert_close(embedding[:, 1:], torch.full_like(embedding[:, 1:], 3.0))


WIDE = {**VIT, "img_size": (112, 448)}  # as many patches as timm's pretrained square of 224


@pytest.mark.parametrize("spec", [CNN, VIT, SWIN, WIDE])
def test_a_model_file_of_ours_gives_its_backbone(spec, tmp_path):
    source = TimmBackbone(**spec)
    model = MultiTaskModel(source, {"depth": {"type": "MultiScale", "width": 4}}, {"depth": Depth()}, **PREPROCESSING)
    save_model(tmp_path / "base.safetensors", model)
    target = TimmBackbone(**spec)
    assert load_base(target, checkpoint=tmp_path / "base.safetensors") == state_hash(source.state_dict())


def test_a_position_embedding_of_ours_keeps_its_sides(tmp_path):
    """Rows stay rows: an embedding that varies with height alone still does after resampling 4x6 to 8x9 patches."""
    source = TimmBackbone(**VIT)
    rows = torch.arange(4.0).repeat_interleave(6)
    with torch.no_grad():
        source.body.model.pos_embed[0, 1:] = rows[:, None]
    model = MultiTaskModel(source, {"depth": {"type": "MultiScale", "width": 4}}, {"depth": Depth()})
    save_model(tmp_path / "base.safetensors", model)
    target = TimmBackbone(**{**VIT, "img_size": (64, 72)})
    load_base(target, checkpoint=tmp_path / "base.safetensors")
    grid = target.body.model.pos_embed[0, 1:, 0].reshape(8, 9)
    assert bool((grid.std(1) < 1e-5).all()) and bool((grid[1:, 0] > grid[:-1, 0]).all())


def test_a_partial_match_is_refused_unless_allowed(tmp_path, capsys):
    state = complete(CNN).state_dict()
    state["conv1.extra"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    del state["layer1.0.conv1.weight"], state["bn1.num_batches_tracked"]
    torch.save(state, tmp_path / "part.pth")
    backbone = TimmBackbone(**CNN)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match="allow_partial") as error:
        load_base(backbone, checkpoint=tmp_path / "part.pth")
    for words in (
        "missing 1: backbone.layer1.0.conv1.weight",
        "unexpected 1: backbone.conv1.extra",
        "wrong shape 1: backbone.bn1.bias (3,) for (16,)",
    ):
        assert words in str(error.value)
    assert state_hash(before) == state_hash(backbone.state_dict())
    report = load_weights(backbone, state, "part", allow_partial=True)
    assert (len(report.missing), len(report.unexpected), len(report.wrong_shape)) == (1, 1, 1)
    assert torch.equal(backbone.body.layer1[0].conv1.weight, before["body.layer1.0.conv1.weight"])
    assert torch.equal(backbone.body.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save(complete(VIT).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="does not match the backbone resnet10t"):
        load_base(TimmBackbone(**CNN), checkpoint=tmp_path / "vit.pth", allow_partial=True)
    torch.save(complete(CNN).state_dict(), tmp_path / "cnn.pth")
    with pytest.raises(ValueError, match="does not match the backbone vit"):
        load_base(TimmBackbone(**VIT), checkpoint=tmp_path / "cnn.pth")


@pytest.mark.parametrize("sources", [{}, {"checkpoint": "x", "random_init": True}])
def test_one_source_of_weights_must_be_named(sources):
    with pytest.raises(ValueError, match="exactly one source"):
        load_base(TimmBackbone(**CNN), **sources)


def test_averaged_weights_that_are_not_there_are_not_replaced_by_plain_ones(tmp_path):
    plain = TimmBackbone(**CNN).state_dict()
    torch.save({"state_dict": plain}, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"plain\.pth holds no averaged \(EMA\) weights; leave it out"):
        load_base(TimmBackbone(**CNN), checkpoint=tmp_path / "plain.pth", ema=True)
    averaged = {name: value + 1 for name, value in plain.items()}
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "both.pth")
    backbone = TimmBackbone(**CNN)
    load_base(backbone, checkpoint=tmp_path / "both.pth", ema=True)
    assert all(torch.equal(value, averaged[name]) for name, value in backbone.state_dict().items())


def test_random_weights_on_request():
    backbone = TimmBackbone(**CNN)
    before = state_hash(backbone.state_dict())
    assert load_base(backbone, random_init=True) == before


def test_a_download_without_network_says_what_to_do(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # no retries
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(ValueError, match=r"could not be downloaded.*checkpoint=PATH"):
        load_base(TimmBackbone("resnet18"), pretrained=True)
