"""Predictor: inputs of every kind, sizes, tiles and mirror images, against passes of the model by hand."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import tiny
from PIL import Image

from symerge_dense import Predictor
from symerge_dense.datasets.resize import resize
from symerge_dense.inference import arrays
from symerge_dense.inference.image_inputs import like_learned, to_pixels
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.multi_task import MultiTaskModel

LEARNED = (32, 48)


@pytest.fixture(scope="module")
def model():
    return tiny.family(tiny.CNN)[2].eval()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "merged.safetensors"
    save_model(file, model, {"image_size": list(LEARNED)})
    return file


def picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def by_hand(model, pixels, size):
    """Raw outputs at the image's own size, after one pass at ``size``."""
    image = torch.from_numpy(resize(pixels, size)).permute(2, 0, 1)[None].float()
    outputs = model(image, mode="predict")[0]
    own = pixels.shape[:2]
    return {
        name: F.interpolate(value[None], size=own, mode="bilinear", align_corners=False)
        for name, value in outputs.items()
    }


# -- what comes out ---------------------------------------------------------------------------------------------------
def test_arrays_are_in_the_tasks_units_at_the_images_own_size(model, path):
    prediction = Predictor(path, device="cpu")(picture())
    raw = by_hand(model, picture(), (32, 48))
    assert list(prediction) == ["segmentation", "depth", "normals"]
    assert prediction["segmentation"].dtype == np.uint8 and prediction["segmentation"].shape == (40, 60)
    assert np.array_equal(prediction["segmentation"], raw["segmentation"][0].argmax(0).numpy())
    np.testing.assert_allclose(prediction["depth"], raw["depth"][0, 0].numpy(), rtol=1e-5, atol=1e-6)
    unit = F.normalize(raw["normals"], dim=1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(prediction["normals"], unit, rtol=1e-4, atol=1e-5)
    assert prediction["depth"].dtype == prediction["normals"].dtype == np.float32


def test_every_kind_of_input_gives_the_same(path, tmp_path):
    pixels, predictor = picture(), Predictor(path, device="cpu")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    inputs = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), tensor, tensor.float()]
    expected = predictor(pixels)
    for given in inputs:
        found = predictor(given)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    grey = pixels[..., 0]
    for given in (grey, grey[..., None], Image.fromarray(grey), tensor[:1]):
        assert np.array_equal(to_pixels(given), np.repeat(grey[..., None], 3, 2))
    for given in (pixels.astype(np.float32), pixels.astype(np.float64) + 0.2, tensor.double(), tensor.half()):
        assert np.array_equal(to_pixels(given), pixels)
    assert not to_pixels(np.zeros((4, 4, 3), np.float32)).any()
    rgba = np.dstack([pixels, np.random.default_rng(1).integers(0, 256, (40, 60), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    over_white = to_pixels(tmp_path / "rgba.png")
    for given in (rgba, rgba.astype(np.float32), torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba)):
        assert np.array_equal(to_pixels(given), over_white)
    assert not np.array_equal(over_white, pixels)
    clear = Image.fromarray(np.dstack([pixels, np.full((40, 60), 0, np.uint8)]))
    assert (to_pixels(clear) == 255).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.random.default_rng(0).random((4, 4, 3)), "array of float64.*uint8.*in 0..1 times 255"),
        (np.random.default_rng(0).normal(size=(4, 4, 3)), "not normalised"),
        (np.full((4, 4, 3), 7), "array of int64.*uint8"),
        (np.full((4, 4, 3), np.nan), "nan to nan"),
        (np.zeros((4, 4, 2), np.uint8), r"\(H,W,3\) RGB"),
        (torch.rand(3, 4, 4), "in 0..1 times 255"),
        (torch.zeros(1, 3, 4, 4), r"give \(3,H,W\)"),
        (torch.randn(3, 4, 4), "not normalised"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "no known white"),
        (7, "a path, a PIL image"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_image_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        to_pixels(given)


def test_a_list_of_any_sizes_gives_what_single_images_give(path):
    images = [picture(40, 60), picture(80, 60, 1), picture(40, 60, 2), picture(20, 90, 3)]
    single = [Predictor(path, device="cpu")(image) for image in images]
    batched = Predictor(path, device="cpu", batch_size=3)
    for found in (batched(images), list(batched.stream(iter(images)))):
        assert [one["depth"].shape for one in found] == [image.shape[:2] for image in images]
        for one, expected in zip(found, single, strict=True):
            np.testing.assert_allclose(one["depth"], expected["depth"], rtol=1e-4, atol=1e-5)
    assert batched([]) == []


def test_a_batch_is_a_list_of_images(path):
    images = [picture(), picture(seed=1)]
    predictor = Predictor(path, device="cpu", batch_size=2)
    expected = predictor(images)
    batch = np.stack(images)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for given in (batch, batch.astype(np.float32), tensor, tensor.float()):
        found = predictor(given)
        assert isinstance(found, list) and len(found) == 2
        for one, other in zip(found, expected, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in other)
    assert isinstance(predictor(batch[:1]), list) and predictor(batch[:0]) == []
    with pytest.raises(ValueError, match=r"give \(H,W,3\) RGB"):
        predictor(batch.transpose(0, 3, 1, 2))


def test_only_the_wanted_tasks_are_computed(path):
    predictor = Predictor(path, device="cpu", tasks=["depth"])
    calls = []
    predictor.backend.model.heads["normals"].register_forward_hook(lambda *_: calls.append(1))
    assert list(predictor(picture())) == ["depth"] and not calls


# -- sizes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "image", "expected"),
    [
        ({}, (64, 96), (32, 48)),  # the area that the model learned on
        ({}, (96, 64), (64, 32)),  # and the image's aspect, in steps of the coarsest stride
        ({}, (33, 44), (32, 32)),
        ({"size": (24, 40)}, (64, 96), (24, 40)),
        ({"size": "native"}, (45, 61), (45, 61)),
        ({"tile": 32}, (45, 61), (45, 61)),
    ],
)
def test_the_size_at_which_the_model_is_asked(path, options, image, expected):
    assert Predictor(path, device="cpu", **options).working_size(*image) == expected


def test_without_a_learned_size_images_keep_their_own(model):
    assert Predictor(model, device="cpu").working_size(45, 61) == (45, 61)
    assert like_learned((5000, 10), (32, 48), (32, 32)) == (864, 32)


def test_a_transformer_takes_every_size_and_gives_it_back():
    predictor = Predictor(tiny.family(tiny.VIT)[2], device="cpu", size="native")
    for size in ((32, 48), (45, 31), (9, 70)):
        prediction = predictor(picture(*size))
        assert prediction["segmentation"].shape == size and prediction["normals"].shape == (*size, 3)


def test_large_images_are_decided_in_bands(path, monkeypatch):
    expected = Predictor(path, device="cpu")(picture(200, 300))
    monkeypatch.setattr(arrays, "MOST_VALUES", 5000)  # a few rows of four classes
    found = Predictor(path, device="cpu")(picture(200, 300))
    np.testing.assert_allclose(found["depth"], expected["depth"], rtol=1e-4, atol=1e-5)
    assert (found["segmentation"] == expected["segmentation"]).mean() > 0.999


# -- views ------------------------------------------------------------------------------------------------------------
def test_flip_averages_with_the_mirror_image(model, path):
    pixels = picture(32, 48)
    found = Predictor(path, device="cpu", flip=True)(pixels)
    plain, mirrored = by_hand(model, pixels, (32, 48)), by_hand(model, pixels[:, ::-1].copy(), (32, 48))
    depth = (plain["depth"] + mirrored["depth"].flip(-1)) / 2
    np.testing.assert_allclose(found["depth"], depth[0, 0].numpy(), rtol=1e-5, atol=1e-6)
    turned = mirrored["normals"].flip(-1) * torch.tensor([-1.0, 1, 1]).view(1, 3, 1, 1)
    normals = F.normalize(F.normalize(plain["normals"], dim=1) + F.normalize(turned, dim=1), dim=1)
    np.testing.assert_allclose(found["normals"], normals[0].permute(1, 2, 0).numpy(), rtol=1e-4, atol=1e-5)
    probabilities = plain["segmentation"].softmax(1) + mirrored["segmentation"].flip(-1).softmax(1)
    assert np.array_equal(found["segmentation"], probabilities[0].argmax(0).numpy())


class Position:
    """A backend whose depth is the pixel's red, whatever the tile: tiles must join without a trace."""

    size, decided = None, False

    def __init__(self):
        self.tasks = tiny.tasks()
        self.record = {}

    def __call__(self, images):
        red = images[:, :1] / 255
        logits = torch.cat([red, 1 - red, red * 0.5, red * 0.2], 1) * 9
        return {"segmentation": logits, "depth": red + 1, "normals": torch.cat([red, -red, 1 - red], 1)}


@pytest.mark.parametrize("tile", [True, 32, (40, 24), (64, 16)])
@pytest.mark.parametrize("flip", [False, True])
def test_tiles_of_a_local_function_give_the_function(tile, flip):
    pixels = picture(101, 83)
    whole = Predictor(Position(), size="native")(pixels)
    found = Predictor(Position(), tile=tile, flip=flip, batch_size=3)(pixels)
    np.testing.assert_allclose(found["depth"], whole["depth"], rtol=1e-5)
    assert np.array_equal(found["segmentation"], whole["segmentation"])
    if not flip:  # the rule of a mirror image changes these normals
        np.testing.assert_allclose(found["normals"], whole["normals"], atol=1e-5)


def test_tiles_that_disagree_are_blended_without_a_step():
    """Every tile gives another depth; along a row, neighbours differ by little."""

    class Each(Position):
        def __init__(self):
            super().__init__()
            self.tasks = {"depth": self.tasks["depth"]}
            self.calls = 0

        def __call__(self, images):
            self.calls += 1
            return {"depth": torch.full((len(images), 1, *images.shape[-2:]), float(self.calls))}

    depth = Predictor(Each(), tile=64, batch_size=1)(picture(160, 160))["depth"]
    assert depth.max() - depth.min() > 2
    assert abs(np.diff(depth, axis=1)).max() < 0.2 and abs(np.diff(depth, axis=0)).max() < 0.4


def test_an_image_no_larger_than_a_tile_is_not_tiled(path):
    one = Predictor(path, device="cpu", size="native")(picture(30, 40))
    other = Predictor(path, device="cpu", tile=64)(picture(30, 40))
    assert np.array_equal(one["depth"], other["depth"])


# -- exported files ---------------------------------------------------------------------------------------------------
class Fixed(Position):
    size = (32, 48)

    def __call__(self, images):
        assert images.shape[-2:] == self.size
        return super().__call__(images)


class Decided(Position):
    decided = True

    def __call__(self, images):
        return {name: self.tasks[name].decide(value) for name, value in super().__call__(images).items()}


def test_a_backend_of_one_size_gets_that_size_alone():
    assert Predictor(Fixed())(picture(100, 70))["depth"].shape == (100, 70)
    tiled = Predictor(Fixed(), tile=True)
    found = tiled([picture(100, 70), picture(20, 90)])
    assert [one["depth"].shape for one in found] == [(100, 70), (20, 90)]
    np.testing.assert_allclose(found[0]["depth"], picture(100, 70)[..., 0] / 255 + 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"images of \(32, 48\) alone"):
        Predictor(Fixed(), size=(64, 64))
    with pytest.raises(ValueError, match="tile=True"):
        Predictor(Fixed(), tile=16)


def test_decisions_are_enlarged_by_the_nearest_pixel_and_not_averaged():
    found = Predictor(Decided(), size=(20, 30))(picture(40, 60))
    small = Predictor(Position(), size="native")(resize(picture(40, 60), (20, 30)))
    assert np.array_equal(found["segmentation"], small["segmentation"].repeat(2, 0).repeat(2, 1))
    for options in ({"flip": True}, {"tile": 32}):
        with pytest.raises(ValueError, match="raw outputs"):
            Predictor(Decided(), **options)


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 64}, "height, width"),
        ({"size": (0, 5)}, "height, width"),
        ({"size": "nativ"}, "'native'"),
        ({"tile": 3}, "at least 8"),
        ({"tile": "large"}, "height, width"),
        ({"batch_size": 0}, "at least 1"),
        ({"tasks": ["dept"]}, "unknown task of this model 'dept'.*depth"),
        ({"device": "cuda:77"}, "cannot be used"),
        ({"device": "tpu9"}, "cannot be used"),
    ],
)
def test_options_out_of_range_are_refused(path, options, words):
    with pytest.raises(ValueError, match=words):
        Predictor(path, **{"device": "cpu", **options})


def test_a_record_may_say_anything_of_the_size(tmp_path, model):
    save_model(tmp_path / "m.safetensors", model, {"image_size": "large"})
    assert Predictor(tmp_path / "m.safetensors", device="cpu").working_size(45, 61) == (45, 61)


def test_mixed_precision_is_near(path):
    exact, near = Predictor(path, device="cpu")(picture()), Predictor(path, device="cpu", amp=True)(picture())
    np.testing.assert_allclose(near["depth"], exact["depth"], rtol=0.1, atol=0.1)


# -- pictures ---------------------------------------------------------------------------------------------------------
def test_an_overlay_mixes_the_image_with_the_tasks_colours(path):
    predictor, pixels = Predictor(path, device="cpu"), picture()
    row = torch.from_numpy(predictor(pixels)["segmentation"].astype(np.int64))
    colors = predictor.tasks["segmentation"].colorize_prediction(row)
    assert np.array_equal(predictor.overlay(pixels, "segmentation", alpha=1), colors)
    assert np.array_equal(predictor.overlay(pixels, "depth", alpha=0), pixels)
    half = predictor.overlay(pixels, "segmentation", alpha=0.5)
    assert abs(half.astype(int) - (pixels.astype(int) + colors) / 2).max() <= 1
    assert predictor.overlay(pixels, "depth", legend=True).shape[0] > 40
    with pytest.raises(ValueError, match="alpha=2"):
        predictor.overlay(pixels, "depth", alpha=2)
    with pytest.raises(ValueError, match="unknown task of this model 'normal'"):
        predictor.overlay(pixels, "normal")


def test_a_panel_has_the_same_size_for_all_frames(path):
    predictor = Predictor(path, device="cpu")
    one, other = predictor.panel(picture()), predictor.panel(picture(seed=1))
    assert one.shape == other.shape and one.dtype == np.uint8 and not any(side % 2 for side in one.shape[:2])


def test_show_draws_the_panel(path, monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf().axes[0].images[0].get_array()))
    predictor = Predictor(path, device="cpu")
    predictor.show(picture())
    assert np.array_equal(shown[0], predictor.panel(picture()))
    plt.close("all")


def test_a_model_of_one_task_works_as_well():
    model = MultiTaskModel(tiny.backbone(), {"depth": {"type": "Linear"}}, {"depth": {"type": "depth"}})
    assert Predictor(model, device="cpu").panel(picture()).shape[2] == 3


# -- other containers -------------------------------------------------------------------------------------------------
def test_the_folder_of_a_run_stands_for_its_merged_model(path, tmp_path):
    shutil.copy(path, tmp_path / "merged.safetensors")
    pixels = picture()
    for task, values in Predictor(path, device="cpu")(pixels).items():
        np.testing.assert_array_equal(Predictor(tmp_path, device="cpu")(pixels)[task], values)


def test_a_hub_folder_gives_what_the_file_gives(path, tmp_path):
    load_model(path)[0].save_pretrained(tmp_path / "hub")
    found = Predictor(tmp_path / "hub", device="cpu", tasks=["depth", "segmentation"])
    assert found.learned == LEARNED and list(found.tasks) == ["segmentation", "depth"]
    assert np.array_equal(found(picture())["depth"], Predictor(path, device="cpu")(picture())["depth"])


def test_a_transformers_own_size_is_the_one_it_learned_on():
    assert Predictor(tiny.family(tiny.VIT)[2], device="cpu").learned == tiny.SIZE
