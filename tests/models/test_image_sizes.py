"""Images of any size: what networks make of them, padding and cropping, and the sizes that are refused."""

import pytest
import timm
import torch
import torch.nn.functional as F
from builders.tiny import CNN, PREPROCESSING, SIZE, VIT, tasks
from einops import rearrange

from symerge_dense.models import image_sizes
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.multi_task import MultiTaskModel

SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "img_size": [56, 84],
    "embed_dim": 12,
    "depths": [2, 2, 1, 1],
    "num_heads": [1, 1, 1, 1],
}
HRNET = {"name": "hrnet_w18_small"}
EVA = {**VIT, "name": "eva02_tiny_patch14_224"}
LINEAR = {"type": "Linear", "norm": False}


def made(spec, **more):
    torch.manual_seed(0)
    return TimmBackbone(**spec, **more).eval()


def plain(spec, state, **more):
    """timm's own network with the same weights, which takes one size."""
    options = {key: value for key, value in spec.items() if key not in ("name", "out_indices")} | more
    levels = TimmBackbone(**spec).out_indices
    body = timm.create_model(spec["name"], features_only=True, out_indices=levels, **options)
    body.load_state_dict({key.removeprefix("body."): value for key, value in state.items()})
    return body.eval()


def model(spec, head=LINEAR):
    return MultiTaskModel(made(spec), dict.fromkeys(tasks(), head), tasks(), **PREPROCESSING).eval()


@pytest.mark.parametrize(("spec", "size"), [(VIT, SIZE), (EVA, SIZE), (SWIN, (56, 84)), (CNN, (33, 47))])
def test_at_its_own_size_a_network_gives_what_timms_gives_bit_for_bit(spec, size):
    backbone, image = made(spec), torch.randn(2, 3, *size)
    assert backbone.padded_size(*size) == size
    reference = plain(spec, backbone.state_dict())(image)
    for ours, theirs in zip(backbone(image), reference, strict=True):
        theirs = rearrange(theirs, "n h w c -> n c h w") if backbone.channels_last else theirs
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spec", [VIT, EVA])
@pytest.mark.parametrize(("size", "padded"), [((48, 32), (48, 32)), ((45, 50), (48, 56)), ((3, 129), (8, 136))])
def test_another_size_is_padded_by_its_last_pixels_and_the_embedding_resampled(spec, size, padded):
    backbone, image = made(spec), torch.randn(2, 3, *size)
    larger = image
    for axis, side in ((2, padded[0]), (3, padded[1])):  # repeated by hand
        last = larger.narrow(axis, larger.shape[axis] - 1, 1)
        larger = torch.cat([larger, *[last] * (side - larger.shape[axis])], axis)
    reference = plain(spec, backbone.state_dict())
    reference.model.set_input_size(padded)  # timm resamples the parameter
    assert backbone.padded_size(*size) == padded
    for ours, theirs in zip(backbone(image), reference(larger), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [SWIN, HRNET])
@pytest.mark.parametrize("size", [(61, 90), (128, 64)])
def test_other_networks_give_features_of_every_size(spec, size):
    backbone = made(spec)
    height, width = backbone.padded_size(*size)
    shapes = [feature.shape[-2:] for feature in backbone(torch.randn(1, 3, *size))]
    assert shapes == [(-(-height // stride), -(-width // stride)) for stride in backbone.strides]
    assert height - size[0] < 32 and width - size[1] < 32


def test_padding_is_cropped_from_predictions_and_losses():
    """One linear layer on patches: the prediction of a pixel is that of the padded image."""
    net, size, padded = model(VIT), (45, 50), (48, 56)
    image = torch.rand(2, 3, *size) * 255
    larger = F.pad(image, (0, 6, 0, 3), mode="replicate")
    data = {"segmentation": torch.randint(0, 4, (2, *size)), "depth": torch.rand(2, 1, *size) + 1}
    data["normals"] = F.normalize(torch.randn(2, 3, *size), dim=1)
    predictions, losses = net(image, mode="predict"), net(image, mode="loss", **data)
    for name, raw in net(larger, mode="tensor").items():
        torch.testing.assert_close(net(image, mode="tensor")[name], raw)
        expected = F.interpolate(raw, size=padded, mode="bilinear", align_corners=False)[..., :45, :50]
        torch.testing.assert_close(torch.stack([row[name] for row in predictions]), expected)
        torch.testing.assert_close(losses[f"loss_{name}"], net.tasks[name].loss(expected, data[name]))


def test_the_copy_for_one_size_gives_the_same_without_resampling():
    backbone, image = made(VIT), torch.randn(1, 3, 45, 50)
    fixed = backbone.for_size(45, 50)
    assert fixed.spec["img_size"] == [48, 56] and backbone.spec["img_size"] == list(SIZE)
    for ours, theirs in zip(fixed(F.pad(image, (0, 6, 0, 3), mode="replicate")), backbone(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert made(CNN).for_size(45, 50).spec == made(CNN).spec


def test_a_graph_is_exported_at_another_size():
    net, image = model(VIT), torch.rand(1, 3, 45, 50) * 255
    before = net(image, mode="tensor")
    graph = torch.export.export(net, (image,), strict=False).module()
    for name, output in graph(image).items():
        torch.testing.assert_close(output, before[name], rtol=1e-4, atol=1e-4)


def test_a_seed_still_fixes_the_weights():
    torch.manual_seed(3)
    expected = timm.create_model("resnet10t", features_only=True, out_indices=(4,), channels=(8, 16, 24, 32))
    torch.manual_seed(3)
    backbone = TimmBackbone("resnet10t", out_indices=(4,), channels=(8, 16, 24, 32))
    for ours, theirs in zip(backbone.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**VIT, "dynamic_img_size": False}, [r"images of (32, 48), not (45, 50)", "img_size=(45, 50)"]),
        (
            {"name": "beit_base_patch16_224", "depth": 3, "embed_dim": 24, "num_heads": 2},
            ["images of (224, 224), not (45, 50)", "img_size=(45, 50)", "resize the images to (224, 224)"],
        ),
        ({"name": "hiera_tiny_224"}, ["'hiera_tiny_224' does not take images of (45, 50)", "to (224, 224)"]),
        ({"name": "levit_128s"}, ["'levit_128s' does not take images of (45, 50)", "to (224, 224)"]),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_with_one_that_it_takes(spec, words):
    backbone = made(spec)
    for size in ((45, 50), (64, 64)):
        with pytest.raises(ValueError) as error:
            backbone(torch.zeros(1, 3, *size))
        assert all(word.replace("(45, 50)", str(size)) in str(error.value) for word in words), error.value
    backbone(torch.zeros(1, 3, *backbone.spec.get("img_size", (224, 224))))


def test_a_fault_of_the_input_is_not_blamed_on_its_size():
    with pytest.raises(RuntimeError, match="channels"):
        made(CNN)(torch.zeros(1, 5, 64, 64))


def test_a_compiled_network_pads_and_resamples_too():
    net, image = model(VIT), torch.rand(1, 3, 41, 59) * 255
    expected = net(image, mode="predict")[0]["depth"]
    compiled = torch.compile(net, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(image, mode="predict")[0]["depth"], expected, rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_asked_is_run_as_it_is(monkeypatch):
    monkeypatch.setattr(image_sizes, "fits", lambda *_: False)  # as where an operation knows no meta device
    backbone = made(CNN)
    assert backbone.padded_size(41, 59) == (41, 59)
    assert backbone(torch.zeros(1, 3, 41, 59))[0].shape[-2:] == (11, 15)
