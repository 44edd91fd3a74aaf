"""Segmentors of mmsegmentation: the same outputs, and a config that is read without being run."""

import copy
import shutil

import numpy as np
import pytest
import torch
from builders.foreign_networks import SIZE, images, settled
from builders.pipeline_tiny import tool
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

from symerge_dense.experts.importing.importer import import_expert
from symerge_dense.experts.importing.mmseg_config import LONGEST, config_options, literals
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import load_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of mmseg, about its losses and operators
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
D8 = {
    "type": "ResNetV1c",
    "depth": 50,
    "num_stages": 4,
    "out_indices": (0, 1, 2, 3),
    "dilations": (1, 1, 2, 4),
    "strides": (1, 2, 1, 1),
    "norm_cfg": {"type": "SyncBN", "requires_grad": True},
    "norm_eval": False,
    "style": "pytorch",
    "contract_dilation": True,
}
PLAIN = {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}}
FCN = {
    "type": "FCNHead",
    "in_channels": 2048,
    "in_index": 3,
    "channels": 24,
    "num_convs": 2,
    "concat_input": True,
    "dropout_ratio": 0.1,
    "num_classes": 19,
    "norm_cfg": {"type": "SyncBN", "requires_grad": True},
    "align_corners": False,
    "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
}
ASPP = {**FCN, "type": "ASPPHead", "in_channels": 512, "dilations": (1, 2, 3), "align_corners": True}
for key in ("num_convs", "concat_input"):
    del ASPP[key]
AUXILIARY = {**FCN, "in_channels": 256, "in_index": 2, "channels": 8, "num_convs": 1}


def config_of(backbone, head, **more):
    preprocessor = {"type": "SegDataPreProcessor", "mean": MEAN, "std": STD, "bgr_to_rgb": True, "size": SIZE}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": preprocessor,
        "pretrained": None,
        "backbone": backbone,
        "decode_head": head,
        "test_cfg": {"mode": "whole"},
        **more,
    }
    return Config(
        {
            "model": model,
            "data_preprocessor": preprocessor,
            "default_scope": "mmseg",
            "optimizer": {"type": "SGD", "lr": 0.01},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of real size are large: they go when the tests of this file are through."""
    folder = tmp_path_factory.mktemp("mmseg")
    yield folder
    shutil.rmtree(folder)


def segmentor(config):
    """mmseg's network of a config, with BatchNorm for its distributed form."""
    from mmseg.models import EncoderDecoder  # late: it warns

    model = copy.deepcopy(config.model.to_dict())
    for part in ("backbone", "decode_head", "auxiliary_head"):
        if part in model:
            model[part]["norm_cfg"] = {"type": "BN"}
    with DefaultScope.overwrite_default_scope("mmseg"):
        return settled(EncoderDecoder(**{key: value for key, value in model.items() if key != "type"}))


@torch.no_grad()
def both(network, path):
    """(mmseg's output, ours) at image size."""
    image = images()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    meta = {"img_shape": SIZE, "ori_shape": SIZE, "pad_shape": SIZE, "padding_size": [0] * 4}
    model, record = load_model(path)
    expected = network.encode_decode((image - mean) / std, [meta])
    assert expected.shape[-2:] == SIZE and expected.std() > 1e-3
    return expected, model(image, mode="predict")[0]["segmentation"][None], record


def test_a_dilated_deep_stem_segmentor_gives_the_same_outputs(folder, capsys):
    config = config_of(D8, FCN, auxiliary_head={**AUXILIARY, "in_channels": 1024})
    network = segmentor(config)
    hub = MessageHub.get_instance("imported-segmentor")
    hub.update_scalar("loss", 1.0)
    meta = {"cfg": config.pretty_text, "iter": 3, "seed": 0, "dataset_meta": {"palette": np.zeros(3)}}
    torch.save({"meta": meta, "state_dict": network.state_dict(), "message_hub": hub.state_dict()}, folder / "d8.pth")
    backbone = {
        name.removeprefix("backbone."): value
        for name, value in network.state_dict().items()
        if name.startswith("backbone.")
    }
    torch.save({"state_dict": backbone}, folder / "resnet50_v1c.pth")
    import_expert(folder / "d8.pth", folder / "d8.safetensors", base=folder / "resnet50_v1c.pth")
    assert "format mmseg" in capsys.readouterr().out
    expected, found, record = both(network, folder / "d8.safetensors")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert record["backbone"] == {"name": "resnet50c", "output_stride": 8, "out_indices": [1, 2, 3, 4]}
    assert record["base_hash"] == load_base(TimmBackbone(**record["backbone"]), checkpoint=folder / "d8.pth")
    assert all(name.startswith("auxiliary_head.") for name in record["origin"]["dropped"])
    assert len(record["origin"]["dropped"]) == 14
    assert record["preprocessing"] == {"mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def plain(folder):
    """(network, its files with and without config): ResNet-18 with an ASPPHead."""
    config = config_of(PLAIN, ASPP)
    network = segmentor(config)
    torch.save({"meta": {"cfg": config.pretty_text}, "state_dict": network.state_dict()}, folder / "plain.pth")
    torch.save({"meta": {"epoch": 3}, "state_dict": network.state_dict()}, folder / "bare.pth")
    return network, folder / "plain.pth", folder / "bare.pth"


def test_a_plain_segmentor_gives_the_same_outputs(plain, folder):
    import_expert(plain[1], folder / "plain.safetensors")
    expected, found, record = both(plain[0], folder / "plain.safetensors")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert record["backbone"]["name"] == "resnet18.tv_in1k" and "output_stride" not in record["backbone"]
    assert record["model"]["align_corners"] is True and record["heads"]["segmentation"]["align_corners"] is True


def test_without_config_the_flags_say_it(plain, folder, capsys):
    out = folder / "flags.safetensors"
    head = ["--head", "decode_head=ASPPHead", "width=24", "in_index=3", "dilations=(1, 2, 3)"]
    assert tool("import_expert.py", plain[2], "--out", out, *head) == 2
    error = capsys.readouterr().err
    assert all(flag in error for flag in ("--mean", "--std", "--align-corners", "--output-stride"))
    assert "--head" not in error
    assert tool("import_expert.py", plain[2], "--out", out, "--head", "width=24") == 2
    assert "--head decode_head=..., --head in_index=..." in capsys.readouterr().err
    flags = [*head, "--mean", *MEAN, "--std", *STD, "--align-corners", "true", "--output-stride", "32"]
    assert tool("import_expert.py", plain[2], "--out", out, *flags) == 0
    expected, found, _ = both(plain[0], out)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wrong = [str(part).replace("24", "32") for part in flags]
    assert tool("import_expert.py", plain[2], "--out", folder / "never.safetensors", *wrong) == 2
    assert "wrong shape" in capsys.readouterr().err and not list(folder.glob("*never*"))


# -- the config -------------------------------------------------------------------------------------------------------
def options(backbone=PLAIN, head=ASPP, **more):
    return config_options({"cfg": config_of(backbone, head, **more).pretty_text}, "file.pth")


def test_what_a_config_says():
    found = options(D8, FCN)
    assert (found.output_stride, found.align_corners, found.out_indices) == (8, False, None)
    assert (list(found.mean), list(found.std)) == (MEAN, STD)
    assert found.head == {
        "decode_head": "FCNHead",
        "width": 24,
        "in_index": 3,
        "num_convs": 2,
        "concat_input": True,
        "dropout_ratio": 0.1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "align_corners": False,
    }
    assert options().output_stride == 32
    assert options({**D8, "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}).output_stride == 16
    assert options({**PLAIN, "out_indices": (1, 3)}).out_indices == [2, 4]
    assert (
        options({**PLAIN, "type": "mmseg.ResNet"}, {**ASPP, "type": "mmseg.models.FCNHead"}).head["decode_head"]
        == "FCNHead"
    )


def test_a_config_of_mmcv():
    text = (
        "norm_cfg = dict(type='SyncBN')\nmodel = dict(backbone=dict(type='ResNet', depth=50), decode_head=dict("
        "type='FCNHead', channels=8))\nimg_norm_cfg = dict(\n    mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)\n"
        "data = dict(a=[dict(type='Normalize', **img_norm_cfg)])\ntotal = 3 * 4\n"
    )
    found = config_options({"config": text}, "file.pth")
    assert (found.mean, found.std, found.head["width"]) == ((1, 2, 3), (4, 5, 6), 8)
    with pytest.raises(ValueError, match="BGR"):
        config_options({"config": text.replace("True", "False")}, "file.pth")


def test_windows_of_the_test_are_mentioned(capsys):
    options(test_cfg={"mode": "slide", "crop_size": (8, 8), "stride": (4, 4)})
    assert "file.pth was tested in sliding windows" in capsys.readouterr().out


@pytest.mark.parametrize("meta", [{}, {"cfg": None}, {"cfg": {"model": 1}}, {"epoch": 3}])
def test_no_config_says_nothing(meta):
    found = config_options(meta, "file.pth")
    assert found.head == {} and found.mean is found.output_stride is found.align_corners is None


@pytest.mark.parametrize(
    ("backbone", "head", "words"),
    [
        ({**PLAIN, "type": "ResNeXt", "groups": 32}, ASPP, ["ResNeXt", "groups=32"]),
        ({**PLAIN, "type": "ResNetV1d"}, ASPP, ["ResNetV1d"]),
        ({**PLAIN, "type": "MixVisionTransformer"}, ASPP, ["MixVisionTransformer"]),
        ({**D8, "style": "caffe"}, FCN, ["caffe"]),
        ({**D8, "contract_dilation": False}, FCN, ["contract_dilation"]),
        ({**D8, "depth": 18}, FCN, ["dilation at depth 18"]),
        ({**D8, "multi_grid": (1, 2, 4)}, FCN, ["multi_grid"]),
        ({**PLAIN, "strides": (1, 2, 2, 4)}, FCN, ["strides=(1, 2, 2, 4)"]),
        ({**PLAIN, "norm_cfg": {"type": "GN", "num_groups": 2}}, FCN, ["GN"]),
        ({**PLAIN, "norm_cfg": {"type": "BN", "eps": 0.001}}, FCN, ["0.001"]),
        (PLAIN, [FCN, FCN], ["decode_head", "list", "one decode head"]),
        ({**PLAIN, "strides": 2}, FCN, ["no network of mmseg", "--head"]),
    ],
)
def test_networks_that_timm_does_not_compute_are_refused(backbone, head, words):
    with pytest.raises(ValueError) as error:
        options(backbone, head)
    assert all(word in str(error.value) for word in ["file.pth", *words]), error.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "dict(a=1, b=[-1.5, None], c=(True, 'x'), **{'d-e': dict()})",
            {"a": 1, "b": [-1.5, None], "c": (True, "x"), "d-e": {}},
        ),
        ("{'a': {'b': dict({'c': 1}, d=2)}, **dict(e=3)}", {"a": {"b": {"c": 1, "d": 2}}, "e": 3}),
        ("[list((1, 2)), tuple([3]), list(), b'x']", [[1, 2], (3,), [], b"x"]),
    ],
)
def test_literals_are_read(text, value):
    assert literals(f"other = open('x')\nmodel = {text}\n", ["model"], "x") == {"model": value}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch PLANTED')",
        "open('PLANTED', 'w')",
        "[open('PLANTED', 'w') for _ in [1]]",
        "dict(a=open('PLANTED', 'w'))",
        "(lambda: open('PLANTED', 'w'))()",
        'f\'{open("PLANTED", "w")}\'',
        "dict(dict.fromkeys([1]))",
        "dict(**3)",
        "dict([1])",
        "list(a=1)",
        "dict({}, {})",
        "{[]: 1}",
        "other.name",
        "name",
        "1 if True else 2",
        "(",
        "[" * 500 + "]" * 500,
        "-" * 20000 + "1",
        "dict(a=" * 3000 + "1" + ")" * 3000,
    ],
)
def test_nothing_else_is_read_or_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"config text in file\.pth is not read"):
        config_options({"cfg": f"model = {text}\n"}, "file.pth")
    assert not (tmp_path / "PLANTED").exists()


def test_an_endless_config_is_refused():
    with pytest.raises(ValueError, match="more than"):
        literals("a" * (LONGEST + 1), [], "x")
