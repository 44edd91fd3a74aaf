"""Every head: shapes, named layers that exist and learn, and what is refused."""

import pytest
import torch
from builders.prepared_python import ROOT, Python
from mmengine.runner import Runner
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from symerge_dense.models.heads.mmseg import MMSegHead
from symerge_dense.models.heads.native import DeepLab, Linear, MultiScale
from symerge_dense.registry import HEADS
from symerge_dense.testing.heads import CHANNELS, HEAD_CHECKS, STRIDES, example_features, head_builder

ALL = [0, 1, 2, 3]
MMSEG = [
    {"decode_head": "FCNHead"},
    {"decode_head": "FCNHead", "in_index": [0, 3], "input_transform": "resize_concat", "num_convs": 1},
    {"decode_head": "UPerHead", "in_index": ALL},
    {"decode_head": "SegformerHead", "in_index": ALL},
    {"decode_head": "PSPHead", "in_index": 2},
    {"decode_head": "ASPPHead", "dilations": [1, 2]},
    {"decode_head": "DepthwiseSeparableASPPHead", "c1_in_channels": 8, "c1_channels": 4, "dilations": [1, 2]},
    {"decode_head": "FPNHead", "in_index": ALL},
    {"decode_head": "FPNHead", "in_index": [1, 3]},
    {"decode_head": "DepthwiseSeparableFCNHead", "norm_cfg": {"type": "BN"}},
    {"decode_head": "LightHamHead", "in_index": [1, 2], "ham_channels": 16},
    {"decode_head": "EncHead", "use_se_loss": False, "in_index": [1, 2, 3], "num_codes": 4},
]
LAST = [
    "conv_cat",
    "conv_cat",
    "fpn_bottleneck",
    "fusion_conv",
    "bottleneck",
    "bottleneck",
    "sep_bottleneck.1.pointwise_conv",
    "scale_heads.3.4",
    "scale_heads.1.2",
    None,
    "align",
    None,
]
OPTIONS = [
    *({"type": "MMSegHead", "width": 16, **options} for options in MMSEG),
    *({"type": name} for name in HEADS if name != "MMSegHead"),
    {"type": "MultiScale", "width": 4},
    {"type": "DeepLab", "atrous_rates": [2, 3]},
]


def names(options):
    return "-".join(str(value) for value in options.values())


def build(options, channels=3):
    return HEADS.build({**options, "in_channels": CHANNELS, "strides": STRIDES, "channels": channels})


@pytest.mark.parametrize("check", HEAD_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("options", OPTIONS, ids=names)
def test_contract(options, check):
    check(head_builder(options))


@pytest.mark.parametrize("options", OPTIONS, ids=names)
def test_pre_final_is_the_normalised_convolution(options):
    head = build(options)
    has_pre_final = bool(head.layers["pre_final"])
    assert has_pre_final or options["type"] == "Linear"
    parts = [part for name in head.layers["pre_final"] for part in head.get_submodule(name).modules()]
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in parts) or not has_pre_final or head.pooled


@pytest.mark.parametrize(("options", "last"), [(o, last) for o, last in zip(MMSEG, LAST, strict=True) if last], ids=str)
def test_pre_final_of_mmseg_heads_is_the_last_convolution_before_the_predictor(options, last):
    assert build({"type": "MMSegHead", "width": 16, **options}).layer_modules("pre_final") == [f"head.{last}"]


def test_deeplab_is_torchvisions():
    ours, theirs = build({"type": "DeepLab"}).eval(), DeepLabHead(CHANNELS[-1], 3).eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = example_features()
    assert torch.equal(ours(inputs), theirs(inputs[-1]))
    assert ours.layers == {"final": ("4",), "pre_final": ("1", "2")}


def test_multiscale_against_the_formula():
    head, inputs = build({"type": "MultiScale", "width": 4}).eval(), example_features()
    total = sum(
        torch.nn.functional.interpolate(lateral(x), size=(16, 16), mode="bilinear")
        for lateral, x in zip(head.laterals, inputs, strict=True)
    )
    torch.testing.assert_close(head(inputs), head.predict(torch.relu(head.norm(head.conv(total)))))


@pytest.mark.parametrize("norm", [True, False])
def test_linear_against_the_formula(norm):
    head, inputs = build({"type": "Linear", "norm": norm}), example_features()
    x = inputs[-1]
    if norm:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt()
    expected = torch.einsum("nchw,kc->nkhw", x, head.predict.weight[:, :, 0, 0]) + head.predict.bias.view(3, 1, 1)
    torch.testing.assert_close(head(inputs), expected, rtol=1e-4, atol=1e-5)
    assert len(head.state_dict()) == (7 if norm else 2)


def test_dotted_names_reach_any_layer():
    assert build({"type": "DeepLab"}).layer_modules("0.project.1") == ["0.project.1"]
    head = build({"type": "MMSegHead", "width": 16, "pre_final": "head.convs.0"})
    assert head.layer_modules("pre_final") == ["head.convs.0"]
    with pytest.raises(ValueError, match=r"pre_finale.*Did you mean 'pre_final'"):
        head.layer_modules("pre_finale")
    with pytest.raises(ValueError, match=r"head.convz.0"):
        build({"type": "MMSegHead", "width": 16, "pre_final": "head.convz.0"})


@pytest.mark.parametrize(
    ("options", "final"),
    [
        ({"type": "MMSegHead", "width": 32, "num_convs": 0, "concat_input": False}, "head.conv_seg"),
        ({"type": "Linear"}, "predict"),
    ],
)
def test_a_head_without_convolution_before_its_predictor_has_no_pre_final(options, final):
    head = build(options)
    with pytest.raises(ValueError, match=r"unknown layer 'pre_final'.*layer='final'"):
        head.layer_modules("pre_final")
    assert head.layer_modules("final") == [final]


def test_mmsegs_dropout_and_initialisation_stay():
    head = build({"type": "MMSegHead", "width": 64, "dropout_ratio": 0.5})
    assert head.head.dropout.p == 0.5 and head.head.dropout.training
    predictor = {name: value.detach() for name, value in head.head.conv_seg.named_parameters()}
    assert 0.005 < float(predictor["weight"].std()) < 0.015 and not predictor["bias"].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decode_head": "UPerHeat"}, ["UPerHeat", "UPerHead"]),
        ({"decode_head": "BaseDecodeHead"}, ["unknown decode head"]),
        ({"decode_head": "PointHead"}, ["unknown decode head"]),
        ({"decode_head": "UPerHead"}, ["UPerHead", "in_index", "list"]),
        ({"decode_head": "FCNHead", "in_index": 4}, ["in_index=4", "4 features"]),
        ({"decode_head": "FCNHead", "no_such": 1}, ["no_such"]),
        ({"decode_head": "FCNHead", "num_classes": 3}, ["num_classes"]),
        ({"decode_head": "FCNHead", "init_cfg": {"type": "Pretrained", "checkpoint": "x"}}, ["init_cfg"]),
        ({"decode_head": "FCNHead", "norm_cfg": {"type": "os.system"}}, ["os.system", "plain registered name"]),
        ({"decode_head": "FCNHead", "act_cfg": [{"type": print}]}, ["plain registered name"]),
        ({"decode_head": "FCNHead", "loss_decode": {"type": "CrossEntropyLoss"}}, ["loss_decode"]),
        ({"decode_head": "SegmenterMaskTransformerHead", "num_layers": 1, "num_heads": 2, "embed_dims": 16}, ["mmseg"]),
    ],
)
def test_what_does_not_fit_mmseg_is_refused(options, words):
    with pytest.raises(ValueError) as error:
        MMSegHead(CHANNELS, STRIDES, channels=3, width=16, **options)
    assert all(word in str(error.value) for word in words), error.value


def test_a_head_with_two_outputs_is_refused_when_it_gives_them():
    with pytest.raises(ValueError, match="'EncHead' gives tuple"):
        build({"type": "MMSegHead", "width": 16, "decode_head": "EncHead", "in_index": [1, 2, 3], "num_codes": 4})(
            example_features()
        )


def test_mmseg_heads_build_under_another_default_scope(tmp_path):
    Runner(torch.nn.Linear(1, 1), str(tmp_path), log_level="ERROR", experiment_name="scope")
    assert build({"type": "MMSegHead", "width": 16})(example_features()).shape == (2, 3, 2, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "DeepLab"},
        {"type": "MMSegHead", "width": 16, "decode_head": "PSPHead"},
        {"type": "MMSegHead", "width": 16, "decode_head": "ASPPHead"},
    ],
    ids=names,
)
def test_one_image_is_too_few_for_a_norm_after_global_pooling(options):
    head = build(options)
    with pytest.raises(ValueError, match=r"batch size 1.*batch_size >= 2"):
        head.refuse_single_image(1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # what torch would have said
        head(example_features(images=1))
    head.refuse_single_image(2)
    head.eval().refuse_single_image(1)


def test_one_image_is_enough_without_global_pooling():
    head = build({"type": "MultiScale"})
    head.refuse_single_image(1)
    assert head(example_features(images=1)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("cls", [DeepLab, Linear, MultiScale])
def test_impossible_shapes_are_refused(cls):
    for arguments in (([8], [4, 8], 3), ([], [], 3), ([8], [4], 0)):
        with pytest.raises(ValueError, match="channels="):
            cls(*arguments)


def test_mmseg_is_loaded_only_when_one_of_its_heads_is_built():
    program = (
        "import sys, symerge_dense.models.multi_task; from symerge_dense.registry import HEADS\n"
        "print('MMSegHead' in HEADS, 'mmseg' in sys.modules)"
    )
    assert Python("-c", program, folder=ROOT).printed().split() == ["True", "False"]
