"""The multi-task network: modes, spec, losses, and what MMEngine may and may not do to it."""

import json

import pytest
import torch
import torch.nn.functional as F
from builders.tiny import CNN, PREPROCESSING, SIZE, VIT, backbone, tasks
from mmengine.optim import OptimWrapper

from symerge_dense.engine.optim_wrapper import Bf16OptimWrapper, optim_wrapper
from symerge_dense.models.heads.native import MultiScale
from symerge_dense.models.multi_task import MultiTaskModel, NonFiniteLoss, check_finite
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.edges import Edges
from symerge_dense.tasks.segmentation import Segmentation

LIGHT = {"type": "MultiScale", "width": 8}


def model(spec=CNN, head=LIGHT, **options):
    return MultiTaskModel(backbone(spec), dict.fromkeys(tasks(), head), tasks(), **PREPROCESSING, **options)


def batch(images=2, size=SIZE):
    depth = torch.rand(images, 1, *size) + 1
    normals = F.normalize(torch.randn(images, 3, *size), dim=1)
    return {
        "image": torch.rand(images, 3, *size) * 255,
        "index": torch.arange(images),
        "depth": depth,
        "segmentation": torch.randint(0, 4, (images, *size)),
        "normals": normals,
    }


# -- computing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [CNN, VIT])
@pytest.mark.parametrize(
    "head",
    [LIGHT, {"type": "DeepLab", "atrous_rates": [1, 2]}, {"type": "MMSegHead", "width": 8, "decode_head": "FCNHead"}],
)
def test_modes(spec, head):
    net, data = model(spec, head).eval(), batch()
    raw = net(**data, mode="tensor")
    assert {name: output.shape[:2] for name, output in raw.items()} == {
        "segmentation": (2, 4),
        "depth": (2, 1),
        "normals": (2, 3),
    }
    predictions = net(data["image"], mode="predict")
    assert len(predictions) == 2
    for name, output in raw.items():
        large = F.interpolate(output, size=SIZE, mode="bilinear", align_corners=False)
        for row, prediction in enumerate(predictions):
            assert torch.equal(prediction[name], large[row])
        expected = net.tasks[name].loss(large, data[name])
        torch.testing.assert_close(net(**data, mode="loss")[f"loss_{name}"], expected)


def test_images_are_normalised_once():
    net, image = model().eval(), torch.rand(1, 3, *SIZE) * 255
    mean, std = (torch.tensor(PREPROCESSING[key])[:, None, None] for key in ("mean", "std"))
    for ours, theirs in zip(net.features(image), net.backbone((image - mean) / std), strict=True):
        assert torch.equal(ours, theirs)


def test_align_corners_is_obeyed():
    net, image = model(align_corners=True).eval(), torch.rand(1, 3, *SIZE) * 255
    raw = net(image)["depth"]
    large = F.interpolate(raw, size=SIZE, mode="bilinear", align_corners=True)
    assert torch.equal(net(image, mode="predict")[0]["depth"], large[0])


def test_a_loss_is_taken_at_the_targets_size():
    net, data = model().eval(), batch()
    data["depth"] = data["depth"][..., ::2, ::2]
    small = F.interpolate(net(data["image"])["depth"], size=(16, 24), mode="bilinear")
    torch.testing.assert_close(net(**data, mode="loss")["loss_depth"], net.tasks["depth"].loss(small, data["depth"]))


def test_only_some_tasks():
    net, data = model(), batch()
    assert list(net(data["image"], only=["depth"])) == ["depth"]
    assert list(net(**data, mode="loss", only=["normals"])) == ["loss_normals"]
    net.keep_tasks(["depth"])
    assert list(net.tasks) == list(net.heads) == list(net.spec["tasks"]) == list(net.spec["heads"]) == ["depth"]
    with pytest.raises(ValueError, match="unknown task 'normals'"):
        net.keep_tasks(["normals"])


def test_wrong_calls_are_explained():
    net, data = model(), batch()
    del data["depth"]
    with pytest.raises(ValueError, match="no target of task 'depth'"):
        net(**data, mode="loss")
    with pytest.raises(ValueError, match=r"unknown mode 'predictt'.*'predict'"):
        net(data["image"], mode="predictt")


def test_one_image_in_training_is_refused_before_torch_does():
    net = model(head={"type": "DeepLab"})
    with pytest.raises(ValueError, match="batch size 1"):
        net(**batch(images=1), mode="loss")
    assert net.eval()(batch(images=1)["image"])["depth"].shape[0] == 1


# -- describing -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", [CNN, VIT])
def test_the_spec_is_json_and_builds_the_same_network(spec):
    net = model(spec, align_corners=True).eval()
    again = MultiTaskModel.from_spec(json.loads(json.dumps(net.spec))).eval()
    assert again.spec == net.spec
    again.load_state_dict(net.state_dict())
    image = torch.rand(1, 3, *SIZE) * 255
    for one, other in zip(net(image).values(), again(image).values(), strict=True):
        assert torch.equal(one, other)


def test_a_tasks_arguments_survive_whether_given_as_object_or_spec():
    palette = [[1, 2, 3]] * 4
    given = {"segmentation": {"type": Segmentation, "classes": 4, "palette": palette}, "edges": Edges(7.0)}
    net = MultiTaskModel(backbone(), dict.fromkeys(given, LIGHT), given)
    assert net.spec["tasks"]["segmentation"] == {"type": "segmentation", "classes": 4, "palette": palette}
    again = MultiTaskModel.from_spec(net.spec)
    assert again.tasks["segmentation"].channels == 4 and again.tasks["edges"].positive_weight == 7.0
    objects = MultiTaskModel(backbone(), {"segmentation": LIGHT}, {"segmentation": Segmentation(4)})
    assert MultiTaskModel.from_spec(objects.spec).tasks["segmentation"].channels == 4


def test_mean_and_std_are_part_of_the_spec_and_not_of_the_weights():
    net = model()
    assert net.spec["preprocessing"] == {"mean": [127.0] * 3, "std": [60.0] * 3}
    assert not {"mean", "std"} & set(net.state_dict())
    assert net.to("meta").mean.device.type == "meta"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": {"depth": {"type": "os.system"}}}, "unknown head"),
        ({"tasks": {"depth": {"type": "builtins.eval"}}}, "unknown task"),
        ({"tasks": {"depth": {"type": print}}}, "registered name"),
        ({"backbone": {"name": "hf-hub:x/y"}}, "unknown timm model"),
        ({"surplus": 1}, "has the keys"),
        ({"preprocessing": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "std > 0"),
        ({"heads": {"depth": {"type": "MultiScale", "breadth": 3}}}, "breadth"),
        ({"heads": {"edges": {"type": "MultiScale"}}}, "every task needs one head"),
    ],
)
def test_a_spec_from_a_file_is_not_trusted(change, words):
    spec = MultiTaskModel(backbone(), {"depth": LIGHT}, {"depth": Depth()}).spec
    with pytest.raises(ValueError, match=words):
        MultiTaskModel.from_spec({**spec, **change})


def test_a_task_goes_by_its_own_name():
    with pytest.raises(ValueError, match="'depth' stands under the name 'distance'"):
        MultiTaskModel(backbone(), {"distance": LIGHT}, {"distance": Depth()})
    with pytest.raises(ValueError, match="give a Head"):
        MultiTaskModel(backbone(), {"depth": {"width": 8}}, {"depth": Depth()})
    head = MultiScale([8, 16, 24, 32], [4, 8, 16, 32], 1, width=4)
    assert MultiTaskModel(backbone(), {"depth": head}, {"depth": Depth()}).heads["depth"] is head
    with pytest.raises(ValueError, match="the head of segmentation has 1 channels, the task 4"):
        MultiTaskModel(backbone(), {"segmentation": head}, {"segmentation": Segmentation(4)})


# -- MMEngine ---------------------------------------------------------------------------------------------------------
def test_init_weights_changes_nothing():
    net = model(head={"type": "MMSegHead", "width": 8})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.init_weights()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step():
    net, data = model(), batch()
    with torch.no_grad():
        net.heads["depth"].predict.bias.fill_(float("inf"))
    before = {name: value.clone() for name, value in net.named_parameters()}
    with pytest.raises(NonFiniteLoss, match="depth"):
        net.train_step(data, OptimWrapper(torch.optim.SGD(net.parameters(), lr=1.0)))
    assert all(torch.equal(before[name], value) for name, value in net.named_parameters())


def test_which_losses_are_checked():
    check_finite({"loss_a": torch.tensor(1.0), "distance_a": torch.tensor(float("nan"))})
    check_finite({})
    with pytest.raises(NonFiniteLoss) as error:
        check_finite({"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(float("nan"))})
    assert "loss of b (nan)" in str(error.value) and isinstance(error.value, ValueError)


@pytest.mark.parametrize("amp", [False, True])
def test_a_step_learns_also_in_mixed_precision(amp):
    net, data, types = model(), batch(), []
    net.backbone.register_forward_hook(lambda module, inputs, outputs: types.append(outputs[-1].dtype))
    wrapper = optim_wrapper(torch.optim.SGD(net.parameters(), lr=0.01), amp)
    before = net.heads["depth"].predict.weight.detach().clone()
    logs = net.train_step(data, wrapper)
    assert set(logs) == {"loss", "loss_segmentation", "loss_depth", "loss_normals"}
    total = sum(value for name, value in logs.items() if name != "loss")
    torch.testing.assert_close(logs["loss"], total)
    assert not torch.equal(before, net.heads["depth"].predict.weight)
    assert all(value.dtype == torch.float32 for value in logs.values())
    if not torch.cuda.is_available():
        assert isinstance(wrapper, Bf16OptimWrapper) is amp
        assert types == [torch.bfloat16 if amp else torch.float32]
