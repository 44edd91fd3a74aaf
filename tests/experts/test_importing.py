"""Imported experts compute what their origin computes; what does not fit is refused and leaves no file."""

import hashlib
import shutil

import pytest
import torch
import torchvision
from builders.foreign_networks import CHANNELS, MultiTask, images, settled
from builders.pipeline_tiny import tool
from torch import nn

from symerge_dense.experts.importing.formats import FORMATS, UNIT, format_of
from symerge_dense.experts.importing.importer import build, choose_tasks, import_expert, load
from symerge_dense.experts.importing.options import NetworkOptions
from symerge_dense.merging.methods.average import Average
from symerge_dense.merging.run import merge_state
from symerge_dense.models.backbone import TimmBackbone, load_base
from symerge_dense.models.checkpoint import check_same_base, load_model, state_hash
from symerge_dense.models.foreign_files import Foreign, read_foreign
from symerge_dense.models.multi_task import assemble
from symerge_dense.models.resnet_names import depth_of, resnet_spec
from symerge_dense.pipeline.config import load_config

OURS = {"segmentation": "segmentation", "depth": "depth", "normal": "normals"}
OURS_SMALL = {"segmentation": "segmentation", "normal": "normals"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of real size are large: they go when the tests of this file are through."""
    folder = tmp_path_factory.mktemp("foreign")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small(folder):
    """(network, its LibMTL file): a ResNet-18 with two tasks."""
    network = settled(MultiTask(18, tuple(OURS_SMALL)))
    torch.save(network.state_dict(), folder / "small.pt")
    return network, folder / "small.pt"


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def predictions(model, image):
    return {name: value[None] for name, value in model(image, mode="predict")[0].items()}


def assert_same(model, image, expected, rtol=1e-5):
    found = predictions(model, image)
    assert found.keys() == expected.keys()
    for task, output in expected.items():
        assert output.std() > 1e-3, "outputs that say nothing"
        torch.testing.assert_close(found[task], output, rtol=rtol, atol=1e-5)


# -- LibMTL, FusionBench ----------------------------------------------------------------------------------------------
def test_the_documented_sizes():
    with torch.device("meta"):
        network = MultiTask(50)
    assert {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (("encoder", network.encoder), *network.decoders.items())
    } == {"encoder": 23_508_032, "segmentation": 16_128_781, "depth": 16_125_697, "normal": 16_126_211}


def test_a_libmtl_checkpoint_gives_the_same_outputs(folder, capsys):
    network = settled(MultiTask(50, ("normal",)))
    torch.save(network.state_dict(), folder / "best.pt")
    import_expert(folder / "best.pt", folder / "libmtl.safetensors")
    printed = capsys.readouterr().out
    assert "format libmtl" in printed and printed.count("missing 0, unexpected 0") == 2
    model, record = load_model(folder / "libmtl.safetensors")
    assert len(model.state_dict()) == len(network.state_dict())
    assert_same(model, images(), {"normals": network(images() / 255)["normal"]})
    config = load_config("configs/experts/nyuv2_resnet50.py")
    assert TimmBackbone(**config.backbone).spec == record["backbone"]
    assert (config.preprocessing, config.align_corners) == (
        {key: tuple(value) for key, value in record["preprocessing"].items()},
        model.align_corners,
    )
    assert {head["type"] for head in record["heads"].values()} == {"DeepLab"}


def test_a_fusionbench_checkpoint_gives_the_same_outputs(small, folder, capsys):
    content = {
        "state_dict": small[0].state_dict(),
        "epoch": 40,
        "optimizer_states": [{"lr": 1e-4}],
        "pytorch-lightning_version": "2.4.0",
        "loops": {},
        "callbacks": {},
    }
    torch.save(content, folder / "last.ckpt")
    import_expert(folder / "last.ckpt", folder / "fusionbench.safetensors", tasks=["segmentation"])
    assert "format fusionbench" in capsys.readouterr().out
    model, record = load_model(folder / "fusionbench.safetensors")
    assert record["backbone"]["name"] == "resnet18.tv_in1k" and list(model.tasks) == ["segmentation"]
    assert_same(model, images(), {"segmentation": small[0](images() / 255)["segmentation"]})


def resnet(depth):
    with torch.device("meta"):
        return getattr(torchvision.models, f"resnet{depth}")(weights=None)


def changed(network, add=(), remove=("?",), rename=lambda name: name):
    """A state like the network's, of which a file is small: every tensor repeats one number."""
    kept = {
        rename(name): torch.rand((), device="cpu").to(value.dtype).expand(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith(tuple(remove))
    }
    return {**kept, **{name: torch.zeros(2) for name in add}}


@pytest.fixture(scope="module")
def target(small):
    """A network without the weights of the small checkpoint."""
    parts = FORMATS["libmtl"].parts(small[0].state_dict())
    return build(parts, FORMATS["libmtl"], OURS_SMALL, UNIT, "small.pt")


def filled(target, state, folder):
    """Names left out where ``target`` is filled by a file of ``state``."""
    torch.save(state, folder / "changed.pt")
    found = read_foreign(folder / "changed.pt")
    form = format_of(found)
    parts = form.parts(found.state)
    return load(target, parts, form, choose_tasks(list(parts.heads)), "changed.pt")


@pytest.mark.parametrize(
    ("change", "unused"),
    [
        ({}, []),
        ({"remove": ["num_batches_tracked"]}, []),
        ({"rename": lambda name: f"module.{name}"}, []),
        ({"add": ["encoder.fc.weight", "encoder.fc.bias"]}, ["encoder.fc.weight", "encoder.fc.bias"]),
        ({"add": ["loss_scale"]}, ["loss_scale"]),
    ],
)
def test_harmless_differences_of_a_file(small, target, change, unused, tmp_path):
    state = changed(small[0], **change)
    assert filled(target, state, tmp_path) == unused
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    assert torch.equal(target.heads["normals"].get_submodule("4").weight, plain["decoders.normal.4.weight"])
    assert torch.equal(target.backbone.body.layer4[1].bn2.bias, plain["encoder.layer4.1.bn2.bias"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"remove": ["layer2.0.conv1.weight"]}, ["missing 1: backbone.layer2.0.conv1.weight"]),
        ({"remove": ["segmentation.2.bias"]}, ["missing 1: heads.segmentation.2.bias", "--head"]),
        ({"add": ["encoder.layer1.0.extra"]}, ["unexpected 1: backbone.layer1.0.extra"]),
        ({"add": ["decoders.normal.5.weight"]}, ["unexpected 1: heads.normals.5.weight"]),
        ({"add": ["attention.weight"]}, ["attention", "unexpected 1: attention.weight"]),
        ({"add": ["encoder.bn1.bias"]}, ["wrong shape 1: backbone.bn1.bias (2,) for (64,)"]),
        ({"add": ["decoders.normal.4.bias"]}, ["wrong shape 1: heads.normals.4.bias (2,) for (3,)"]),
        ({"add": ["decoders.parts.4.weight"]}, ["unknown task 'parts'", "--task parts=OURS"]),
        ({"rename": lambda name: name.replace("layer4", "layer5")}, ["missing 25", "unexpected 30: backbone.layer5"]),
    ],
)
def test_anything_less_than_a_full_match_is_refused(small, target, change, words, tmp_path):
    with pytest.raises(ValueError) as error:
        filled(target, changed(small[0], **change), tmp_path)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("absent", ["normal.1.weight", "normal.4.weight"])
def test_a_refused_checkpoint_leaves_no_file(small, absent, tmp_path):
    torch.save(changed(small[0], remove=[absent]), tmp_path / "part.pt")
    with pytest.raises(ValueError, match=f"{absent[-8:]}"):
        import_expert(tmp_path / "part.pt", tmp_path / "out.safetensors", tasks=["normal"])
    assert [path.name for path in tmp_path.iterdir()] == ["part.pt"]


def test_options_of_the_caller_go_before_the_formats(small):
    given = NetworkOptions({"atrous_rates": [6, 12, 18]}, std=(1.0, 2.0, 3.0), align_corners=False, output_stride=16)
    form = FORMATS["libmtl"]
    model = build(form.parts(small[0].state_dict()), form, {"normal": "normals"}, UNIT.updated(given), "small.pt")
    assert model.spec["heads"] == {"normals": {"type": "DeepLab", "atrous_rates": [6, 12, 18]}}
    assert model.spec["preprocessing"] == {"mean": [0.0] * 3, "std": [1.0, 2.0, 3.0]}
    assert not model.align_corners and model.backbone.strides == [4, 8, 16, 16]


# -- torchvision ------------------------------------------------------------------------------------------------------
def test_a_torchvision_checkpoint_gives_the_same_outputs(folder):
    reference = settled(
        torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, num_classes=21, aux_loss=True
        )
    )
    torch.save({"model": reference.state_dict(), "epoch": 3}, folder / "model_29.pth")
    import_expert(folder / "model_29.pth", folder / "voc.safetensors")
    model, record = load_model(folder / "voc.safetensors")
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert_same(model, images(), {"segmentation": reference(normalise(images() / 255))["out"]}, rtol=1e-4)
    assert model.tasks["segmentation"].channels == 21
    dropped = record["origin"]["dropped"]
    assert dropped and all(name.startswith("aux_classifier.") for name in dropped)


# -- which format -----------------------------------------------------------------------------------------------------
def foreign(*names, nested=False):
    return Foreign("file.pth", {name: torch.zeros(1) for name in names}, {}, "state_dict" if nested else "")


@pytest.mark.parametrize(
    ("names", "nested", "name"),
    [
        (["encoder.conv1.weight", "decoders.depth.4.weight"], False, "libmtl"),
        (["encoder.conv1.weight", "decoders.depth.4.weight"], True, "fusionbench"),
        (["backbone.conv1.weight", "classifier.4.weight", "aux_classifier.4.weight"], True, "torchvision"),
        (["backbone.stem.0.weight", "decode_head.conv_seg.weight", "auxiliary_head.conv_seg.weight"], True, "mmseg"),
    ],
)
def test_the_format_is_told_by_the_names(names, nested, name):
    assert format_of(foreign(*names, nested=nested)).name == name
    assert format_of(foreign(*names, nested=not nested), name).name == name


@pytest.mark.parametrize(
    "names",
    [
        ["conv1.weight", "fc.weight"],
        ["encoder.conv1.weight"],
        ["backbone.conv1.weight", "head.weight"],
        ["backbone.conv1.weight", "classifier.4.weight", "decode_head.conv_seg.weight"],
    ],
)
def test_no_format_and_several_formats_are_refused(names):
    with pytest.raises(ValueError) as error:
        format_of(foreign(*names))
    assert all(word in str(error.value) for word in [*FORMATS, *(name.split(".")[0] for name in names), "--format"])


def test_a_format_that_does_not_fit_is_refused():
    names = ["backbone.conv1.weight", "classifier.4.weight"]
    with pytest.raises(ValueError, match=r"backbone \(1\), classifier \(1\)"):
        format_of(foreign(*names), "libmtl")
    with pytest.raises(ValueError, match=r"unknown format 'libmlt'.*'libmtl'"):
        format_of(foreign(*names), "libmlt")
    both = foreign(*names, "decode_head.conv_seg.weight")
    assert format_of(both, "torchvision").parts(both.state).unknown.keys() == {"decode_head.conv_seg.weight"}


@pytest.mark.parametrize(
    ("found", "wanted", "named", "chosen"),
    [
        (["depth", "normal"], [], True, {"depth": "depth", "normal": "normals"}),
        (["depth", "normal"], ["normals"], True, {"normal": "normals"}),
        (["depth", "normal"], ["normal", "depth"], True, {"normal": "normals", "depth": "depth"}),
        (["parts", "depth"], ["parts=segmentation"], True, {"parts": "segmentation"}),
        (["segmentation"], ["edges"], False, {"segmentation": "edges"}),
    ],
)
def test_which_tasks_are_taken(found, wanted, named, chosen):
    assert choose_tasks(found, wanted, named) == chosen


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (["depth", "normal"], ["dept"], "unknown head 'dept'.*'depth'"),
        (["depth", "normal"], ["normals", "normal"], "every head is of another task"),
        (["depth", "normal"], ["normal=depth", "depth"], "every head is of another task"),
        (["depth"], ["depth=deep"], "unknown task 'deep'"),
        (["depth"], ["normal=depth"], "unknown head 'normal'"),
    ],
)
def test_which_tasks_are_refused(found, wanted, words):
    with pytest.raises(ValueError, match=words):
        choose_tasks(found, wanted)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets_are_told_by_their_tensors(depth):
    state = resnet(depth).state_dict()
    assert depth_of(state, "x") == depth
    assert resnet_spec(state, 8, "x") == {"name": f"resnet{depth}.tv_in1k", "output_stride": 8}
    assert resnet_spec(state, 32, "x") == {"name": f"resnet{depth}.tv_in1k"}
    with pytest.raises(ValueError, match="output_stride=4"):
        resnet_spec(state, 4, "x")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["features.0.0.weight"], "features"),
        ([f"layer{n}.{b}.conv1.weight" for n in (1, 2, 3, 4) for b in (0, 1, 2)], r"\[3, 3, 3, 3\]"),
        (
            [f"layer{n}.{b}.conv1.weight" for n in (1, 2, 3, 4) for b in (0, 1)] + ["layer2.0.downsample.2.weight"],
            "V1d",
        ),
    ],
)
def test_other_backbones_are_refused(names, words):
    with pytest.raises(ValueError, match=words):
        depth_of(names, "x")


# -- the base ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pair(folder, small):
    """(base file, two experts' model files) with one base, as FusionBench's `_pretrained_` is: a whole network."""
    torch.save({"state_dict": changed(small[0])}, folder / "pretrained.ckpt")
    for task in ("segmentation", "normals"):
        import_expert(small[1], folder / f"{task}.safetensors", tasks=[task], base=folder / "pretrained.ckpt")
    return folder / "pretrained.ckpt", [folder / f"{task}.safetensors" for task in ("segmentation", "normals")]


def test_the_record_says_where_a_file_comes_from(small, pair):
    model, record = load_model(pair[1][1])
    origin = record["origin"]
    assert list(model.tasks) == ["normals"] and origin["tasks"] == {"normal": "normals"}
    assert (origin["format"], origin["file"], origin["base"]) == ("libmtl", "small.pt", "pretrained.ckpt")
    assert origin["sha256"] == hashlib.sha256(small[1].read_bytes()).hexdigest()
    assert origin["preprocessing"] == {"mean": [0.0] * 3, "std": [255.0] * 3}
    assert sorted(origin["dropped"]) == sorted(n for n in small[0].state_dict() if "decoders.segmentation." in n)


def test_imported_experts_are_merged(small, pair):
    loaded = {next(iter(model.tasks)): (model, record) for model, record in map(load_model, pair[1])}
    base = TimmBackbone("resnet18.tv_in1k", output_stride=8)
    digest = load_base(base, checkpoint=pair[0])
    check_same_base({"base": {"base_hash": digest}, **{task: record for task, (_, record) in loaded.items()}})
    experts = {task: model for task, (model, _) in loaded.items()}
    merged = assemble(base, experts)
    states = {task: expert.backbone.state_dict() for task, expert in experts.items()}
    merged.backbone.load_state_dict(merge_state(Average(), base.state_dict(), states))
    expected = {OURS[task]: output for task, output in small[0](images() / 255).items()}
    assert_same(merged.eval(), images(), expected, rtol=1e-4)  # the average of one backbone and itself
    states["normals"] = {name: 3 * value for name, value in states["normals"].items()}
    merged = merge_state(Average(), base.state_dict(), states)
    torch.testing.assert_close(merged["body.conv1.weight"], 2 * states["segmentation"]["body.conv1.weight"])


def test_a_base_of_another_architecture_is_refused(small, folder):
    torch.save(changed(resnet(34)), folder / "resnet34.pth")
    with pytest.raises(ValueError, match="does not match the backbone resnet18"):
        import_expert(small[1], folder / "never.safetensors", base=folder / "resnet34.pth")
    assert not list(folder.glob("*never*"))


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone.", "backbone.body.", "module.encoder."])
def test_a_backbone_is_found_under_its_prefix(prefix, tmp_path):
    plain = changed(resnet(18))
    others = {"decoders.depth.4.weight": torch.zeros(1)} if prefix else {}
    torch.save({**{prefix + name: value for name, value in plain.items()}, **others}, tmp_path / "base.pth")
    backbone = TimmBackbone("resnet18")
    assert load_base(backbone, checkpoint=tmp_path / "base.pth") == state_hash(backbone.state_dict())
    assert torch.equal(backbone.body.layer4[1].bn2.running_var, plain["layer4.1.bn2.running_var"])


def test_a_part_of_a_backbone_under_a_prefix_is_refused(tmp_path):
    state = changed(resnet(18), remove=["layer1.0.conv1.weight"], rename=lambda name: f"encoder.{name}")
    torch.save(state, tmp_path / "base.pth")
    with pytest.raises(ValueError, match=r"missing 1: backbone.layer1.0.conv1.weight, unexpected 0"):
        load_base(TimmBackbone("resnet18"), checkpoint=tmp_path / "base.pth")


# -- the file and the tool --------------------------------------------------------------------------------------------
def test_the_tool(small, folder, capsys):
    out = folder / "kept.safetensors"
    out.write_text("precious")
    assert tool("import_expert.py", small[1], "--out", out) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "precious"
    arguments = ["--std", "2", "2", "2", "--align-corners", "false", "--head", "atrous_rates=[1, 2, 3]", "--overwrite"]
    assert tool("import_expert.py", small[1], "--out", out, *arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("missing 0, unexpected 0") == 3 and "experts.other_base=True" in printed
    model, record = load_model(out)
    assert not model.align_corners and record["preprocessing"]["std"] == [2.0] * 3
    assert record["heads"] == {task: {"type": "DeepLab", "atrous_rates": [1, 2, 3]} for task in OURS_SMALL.values()}
    with pytest.raises(ValueError, match="do not share their base"):
        check_same_base([record])
    with pytest.raises(ValueError, match="unless it is the checkpoint"):
        import_expert(out, out, overwrite=True)
    with pytest.raises(ValueError, match="is of none of the formats"):
        import_expert(out, folder / "twice.safetensors")
    with pytest.raises(ValueError, match=r"end in \.safetensors"):
        import_expert(small[1], folder / "kept.pth")


def test_a_heads_tensors_are_deeplabs():
    """What the documentation of both programs' checkpoints promises, of our own re-implementation."""
    ours = torchvision.models.segmentation.deeplabv3.DeepLabHead(512, CHANNELS["depth"])
    theirs = MultiTask(18, ("depth",)).decoders["depth"]
    assert isinstance(theirs, nn.Sequential)
    assert {n: v.shape for n, v in ours.state_dict().items()} == {n: v.shape for n, v in theirs.state_dict().items()}
