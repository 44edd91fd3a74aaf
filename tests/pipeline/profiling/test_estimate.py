"""The estimate of a run: operations against a count by hand, and images seen against the recipe."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from builders.pipeline_tiny import tool, write_config
from torch import nn

from symerge_dense.models.units import unit_families
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.network import network
from symerge_dense.pipeline.profiling import estimate as module
from symerge_dense.pipeline.profiling.estimate import forward_cost, image_size, matching_cost, workload


def by_hand(model, image):
    """GFLOP of every convolution that runs: 2 * outputs * inputs per output."""
    total = 0

    def count(layer, _, output):
        nonlocal total
        height, width = layer.kernel_size
        total += 2 * output.numel() * layer.in_channels // layer.groups * height * width

    handles = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    model(image)
    for handle in handles:
        handle.remove()
    return total / 1e9


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_config(write_config(tmp_path_factory.mktemp("workload")))


@pytest.mark.filterwarnings("error")
def test_a_forward_pass_is_counted_as_by_hand(config):
    cost = forward_cost(config, config.tasks, image_size(config))
    model = network(config, module.TimmBackbone(**config.backbone), config.tasks).eval()
    image = torch.zeros(1, 3, 32, 48)
    with torch.no_grad():
        assert cost.backbone == pytest.approx(by_hand(model.backbone, image), rel=1e-6)
        assert cost.of(*config.tasks) == pytest.approx(by_hand(model, image), rel=1e-6)
    assert cost.backbone_parameters == pytest.approx(sum(p.numel() for p in model.backbone.parameters()) / 1e6)


def test_the_stages_are_the_images_that_they_see(config):
    cost, tasks = forward_cost(config, config.tasks, image_size(config)), list(config.tasks)
    stages = workload(config, {"train": 10, "unlabelled": 6, "test": 4})
    assert stages["expert depth"] == pytest.approx(3 * 3 * 4 * cost.of("depth") / 1e3)  # 3 batches of 4 hold 10 images
    assert stages["adaptation"] == pytest.approx(3 * 4 * 4 * cost.of(*tasks) / 1e3)  # 4 rounds of 4
    assert stages["training-free merges"] == pytest.approx(2 * (6 + 4) * cost.of(*tasks) / 1e3)
    assert stages["expert labels"] == pytest.approx(6 * sum(cost.of(task) for task in tasks) / 1e3)


def test_every_view_of_the_labels_is_a_pass_of_the_experts(tmp_path):
    more = "adaptation.update(views=dict(flip=True, scales=(1.0, 2.0)))\n"
    config = load_config(write_config(tmp_path, more=more))
    cost = forward_cost(config, config.tasks, image_size(config))
    stages, experts = workload(config, {"train": 10, "unlabelled": 6, "test": 4}), sum(map(cost.of, config.tasks))
    assert stages["expert labels"] == pytest.approx(6 * (2 + 2 * 4) * experts / 1e3)
    assert stages["experts evaluation"] == pytest.approx(4 * (1 + 2 + 2 * 4) * experts / 1e3)  # a row of their own


def test_matching_counts_both_networks_and_the_products_of_their_activations(config):
    matched = dataclasses.replace(config, experts={**config.experts, "match": {"images": 5}})
    cost, (first, *_) = forward_cost(config, config.tasks, image_size(config)), config.tasks
    model = network(config, module.TimmBackbone(**config.backbone), {first: config.tasks[first]}).eval()
    sizes = {}
    for family in unit_families(model, image_size(config)):
        for point, channels in family.points.items():
            sizes[point] = max(sizes.get(point, 0), channels.shape[1])
    places, modules, seen = 0.0, dict(model.backbone.named_modules()), {}
    for name, layer in modules.items():
        layer.register_forward_hook(lambda layer, given, made, name=name: seen.update({name: (given[0], made)}))
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, *image_size(config)))
    for point, size in sizes.items():
        x = seen[point.name][point.side == "out"] if point.name in modules else features[int(point.name[-1])]
        channels = x.shape[point.axis]
        places += (3 if size > 1 else 1) * 2 * channels * x.numel() / 1e9  # positions x channels x channels
    own = [2 * 2 * cost.of(task) for task in config.tasks]  # two images, before and after
    expected = sum(own) + len(own) * 5 * (2 * cost.backbone + places)
    assert places > 0.1 * cost.backbone
    stages = workload(matched, {"train": 10, "unlabelled": 6, "test": 4})
    assert stages["expert matching"] == pytest.approx(expected / 1e3)
    mean = dataclasses.replace(
        matched, base={"mean": True}, experts={**matched.experts, "checkpoints": dict.fromkeys(config.tasks, "x")}
    )
    rest = sum(own[1:]) + (len(own) - 1) * 3 * (2 * cost.backbone + places)  # the first is what they are matched to
    assert matching_cost(mean, 3) == pytest.approx(rest)
    assert matching_cost(config, 6) == 0


def test_without_a_size_the_first_image_is_looked_at(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((40, 64, 3), np.uint8))
    imported = "from symerge_dense.datasets.image_folder import ImageFolder"
    more = f"{imported}\ndata['train'] = dict(type=ImageFolder, root={str(tmp_path)!r})\n"
    path = write_config(tmp_path, more=more)
    assert image_size(load_config(path)) == (40, 64)
    assert image_size(load_config(path, ["data.train.size=[32,48]"])) == (32, 48)
    with pytest.raises(ValueError, match=r"size of the images of data.train is not known.*nowhere.*data.train.size="):
        image_size(load_config(path, ["data.train.root=nowhere"]))


def test_the_tool_prints_minutes_by_the_speed_and_refuses_nonsense(tmp_path, capsys):
    path = write_config(tmp_path)
    assert tool("estimate.py", path, "--images", 10, 6, 4, "--tflops", 2) == 0
    printed = capsys.readouterr().out
    assert "adaptation" in printed and "by 2 TFLOP/s" in printed
    assert tool("estimate.py", path, "--tflops", 0) == 2
    assert "must be positive" in capsys.readouterr().err
