"""BatchNorm re-estimation against a direct computation."""

import pytest
import torch
from torch import nn

from symerge_dense.models.batchnorm import recalibrate


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))


def test_first_layer_equals_the_moments_of_all_pixels_of_all_images():
    net, batches = network(), [torch.randn(n, 3, 8, 9) * n for n in (4, 2, 3)]
    recalibrate(net, batches)
    pixels = torch.cat([net[0](x).detach() for x in batches]).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(net[1].running_mean.double(), pixels.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net[1].running_var.double(), pixels.var(1), rtol=1e-5, atol=1e-6)


def test_with_one_batch_evaluation_mode_equals_training_mode():
    net, images = network(), torch.randn(6, 3, 10, 10)
    recalibrate(net, [images])
    trained = net.train()(images)
    recalibrate(net, [images])  # training mode moved the statistics
    n = 6 * 6 * 6  # output pixels: the running variance is the unbiased one, the batch's is not
    evaluated = net.eval()(images)
    gamma, beta = net[4].weight.view(1, -1, 1, 1), net[4].bias.view(1, -1, 1, 1)
    torch.testing.assert_close((evaluated - beta) / gamma, (trained - beta) / gamma, rtol=2 / n, atol=3 / n)


def test_modes_momentum_and_affine_parameters_are_left_alone():
    net = network()
    net[1].eval()
    net[1].momentum = 0.3
    before = {name: value.clone() for name, value in net.named_parameters()}
    recalibrate(net, [torch.randn(2, 3, 8, 8)])
    assert not net[1].training and net[4].training and net[1].momentum == 0.3
    assert all(torch.equal(before[name], value) for name, value in net.named_parameters())


def test_a_network_without_batchnorm_is_not_run():
    recalibrate(nn.Conv2d(3, 3, 1), iter(lambda: 1 / 0, None))


def test_one_image_is_refused_where_a_layer_pools_it_whole():
    pooling = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"two images or more.*batchnorm='mean'"):
        recalibrate(pooling, [torch.randn(1, 3, 8, 8)])
    recalibrate(pooling, [torch.randn(2, 3, 8, 8)])
