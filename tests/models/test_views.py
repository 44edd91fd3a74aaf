"""Averages over views: every view comes back to the plain image's pixels, by values and by place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import tiny

from symerge_dense.models.image_sizes import padded
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.models.views import View, Views, ViewsModel, average_of_views, check_views
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.intrinsic import Albedo
from symerge_dense.tasks.inverse_depth import InverseDepth
from symerge_dense.tasks.vector import Vector

EVERY = Views(flip=True, scales=(0.75, 1.0, 1.25, 1.5), shift=4)
HEAD = {"type": "DeepLab"}


class ImageItself(MultiTaskModel):
    """Albedo is the image, a quarter of its size: as wide cells' means, or its corners' grid with align_corners."""

    def raw_outputs(self, image, only=None):
        frame = padded(image, self.backbone.padded_size(*image.shape[-2:]))
        size = [-(-side // 4) for side in frame.shape[-2:]]
        how = {"mode": "bilinear", "align_corners": True} if self.align_corners else {"mode": "area"}
        return {"albedo": F.interpolate(frame, size, **how)}


def ramps(height, width):
    """An image (1,3,H,W) whose channels are the row, the column, and a slow wave, in pixels."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([rows, columns, 30 * (rows / 20).sin() * (columns / 20).cos()])[None]


# -- geometry ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT], ids=["cnn", "vit"])
def test_every_view_of_the_image_itself_comes_back_to_its_place(spec, size, corners):
    model = ImageItself(spec, {"albedo": HEAD}, {"albedo": Albedo()}, align_corners=corners)
    image = ramps(*size)
    plain = model(image, mode="tensor")["albedo"]
    for view in EVERY.all[1:]:
        single = Views(view.mirrored, (1.0, view.scale), view.shift)
        average, variance = average_of_views(model, image, single)["albedo"]
        assert average.shape == plain.shape and variance.shape == plain[:, 0].shape
        off = (average - plain).abs()
        assert float(off[:, :2, 3:-3, 3:-3].max()) < 0.02, view  # pixels of the image, of which a cell has four
        assert float(off[:, 2, 3:-3, 3:-3].max()) < 0.5, view  # a wave is smoothed a little
        assert float(off.max()) < 3, view  # at the border an edge is repeated


@pytest.mark.parametrize("size", [(62, 94), (75, 101)])
def test_sides_that_no_patch_divides_are_views_of_one_padded_frame(size):
    model = ImageItself(tiny.VIT, {"albedo": HEAD}, {"albedo": Albedo()})
    image = ramps(*size)
    plain = model(image, mode="tensor")["albedo"]
    average, _ = average_of_views(model, image, EVERY)["albedo"]
    known = (..., slice(3, size[0] // 4 - 3), slice(3, size[1] // 4 - 3))
    assert average.shape == plain.shape and float((average - plain)[:, :2][known].abs().max()) < 0.02


@pytest.mark.parametrize("spec", [tiny.CNN, tiny.VIT], ids=["cnn", "vit"])
@torch.no_grad()
def test_a_mirror_is_averaged_exactly_as_the_task_says(spec):
    image = torch.rand(2, 3, *tiny.SIZE) * 255
    for name in tiny.tasks():
        model = tiny.expert(name, tiny.backbone(spec), 1)
        task = model.tasks[name]
        plain, turned = (model(seen, mode="tensor")[name] for seen in (image, image.flip(-1)))
        expected = task.average([plain, task.mirror_output(turned)])
        found = average_of_views(model, image, Views())[name]
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        measured = ViewsModel(model, Views())(image, mode="predict")
        assert torch.equal(measured[1][name], model.to_image_size({name: expected[0]}, image)[1][name])


# -- values -----------------------------------------------------------------------------------------------------------
def test_what_is_measured_in_pixels_is_divided_by_the_scale_and_depth_is_brought_to_one_level():
    class Flow(Vector):
        name, channels, in_pixels = "flow", 2, True

    plain = torch.rand(2, 2, 3, 4) + 0.5
    assert torch.allclose(Flow().rescale_output(plain * 1.5, 1.5, plain), plain)
    for task in (Depth(), InverseDepth()):
        one = plain[:, :1]
        seen = torch.stack([one[0] * 0.6, one[1] * 1.7])  # whatever a network makes of the size, image by image
        seen[0, 0, 0, 0] = -3.0  # a mistake of one pixel moves no median
        back = task.rescale_output(seen, 1.5, one)
        assert torch.allclose(back.flatten(1)[:, 1:], one.flatten(1)[:, 1:], rtol=1e-5)
        nothing = task.rescale_output(-one, 1.5, one)
        assert torch.equal(nothing, -one)


@torch.no_grad()
def test_segmentation_averages_probabilities_and_its_variance_is_theirs():
    model = tiny.expert("segmentation", tiny.backbone(), 2)
    image = torch.rand(2, 3, *tiny.SIZE) * 255
    average, variance = average_of_views(model, image, Views())["segmentation"]
    seen = [model(image, mode="tensor")["segmentation"], model(image.flip(-1), mode="tensor")["segmentation"].flip(-1)]
    shares = np.stack([output.softmax(1).numpy() for output in seen])
    assert np.allclose(average.softmax(1), shares.mean(0), atol=1e-5)
    assert np.allclose(variance, shares.var(0).sum(1), atol=1e-5) and float(variance.max()) > 0


# -- what views there are ---------------------------------------------------------------------------------------------
def test_views_are_every_scale_mirrored_and_moved_and_the_plain_one_is_first():
    views = Views.of({"flip": True, "scales": [0.75, 1], "shift": 2})
    assert views.all[0] == View() and len(set(views.all)) == 8 and str(views) == "8 views"
    assert Views.of(views.spec) == views and Views.of(None) is None and Views.of(views) is views


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"flips": True}, "Did you mean 'flip'"),
        ({"flip": 2}, "True or False"),
        ({"scales": (0.75, 1.25)}, "1.0 among them"),
        ({"scales": (1.0, 0.0)}, "from 0.25 to 4"),
        ({"scales": 2}, "1.0 among them"),
        ({"scales": ("big", 1.0)}, "give numbers"),
        ({"shift": 0.5}, "whole number of pixels"),
        ({"flip": False}, "views=None for one view"),
        (3, r"dict\(flip=True"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(given, told):
    with pytest.raises(ValueError, match=told):
        Views.of(given)


def test_a_network_of_one_size_takes_mirrors_only_and_says_so():
    backbone = tiny.backbone({**tiny.VIT, "dynamic_img_size": False})
    check_views(Views(), backbone, tiny.tasks(), tiny.SIZE)
    for views in (Views(scales=(1.0, 1.5)), Views(flip=False, shift=4)):
        with pytest.raises(ValueError, match=r"times the image.*built for images of \(32, 48\).*dict\(flip=True\)"):
            check_views(views, backbone, tiny.tasks(), tiny.SIZE)


def test_a_task_without_an_average_is_named_with_its_remedy():
    class Counter(Depth):
        def average(self, outputs, weights=None):
            raise NotImplementedError("counts are not averaged")

    class OnePixel(Depth):
        def average(self, outputs, weights=None):
            return outputs[0][..., :1, :1], outputs[0][:, 0]

    for kind, told in ((Counter, "counts are not averaged"), (OnePixel, "average gives")):
        with pytest.raises(ValueError, match=f"task 'count'.*{told}.*views=None"):
            check_views(Views(), tiny.backbone(), {"count": kind()}, tiny.SIZE)
