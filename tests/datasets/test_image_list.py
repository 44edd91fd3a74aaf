"""Images named one by one or in memory, and the views that a pool is split into."""

import numpy as np
import pytest
import torch
from builders.photos import cut_off, photo, write_hidden_files, write_mixed_photos, write_photos, write_rotated
from PIL import Image

from symerge_dense.datasets.image_files import read_image
from symerge_dense.datasets.image_list import ImageList
from symerge_dense.datasets.unlabelled import Unlabelled


def test_folders_and_files_are_listed_in_the_order_given(tmp_path):
    folder, extra = write_photos(tmp_path / "a", 3), write_photos(tmp_path / "b", 1, suffix=".png")
    write_hidden_files(tmp_path / "a")
    found = ImageList([str(extra[0]), tmp_path / "a"])
    assert found.files == [extra[0], *folder] and found.image_name(0) == str(extra[0])
    assert len(ImageList(tmp_path / "a")) == 3 and len(ImageList(extra[0])) == 1
    assert found.image_size(0) == (48, 64) == found.image(0).shape[:2]


def test_layouts_of_memory_give_one_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), np.uint8)
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    ways = [pixels, list(pixels), channels_first, channels_first.float(), torch.from_numpy(pixels)]
    ways += [[Image.fromarray(picture) for picture in pixels], [{"image": picture} for picture in pixels]]
    for way in ways:
        assert np.array_equal(ImageList(way).image(2), pixels[2])
    assert str(ImageList(pixels)) == str(ImageList(list(pixels))) != str(ImageList(pixels + 1))
    assert ImageList(pixels, size=(3, 4)).resized_image(1).shape == (3, 4, 3)


def test_pictures_of_pillow_are_read_as_their_files(tmp_path):
    wanted = write_mixed_photos(tmp_path / "modes")
    write_rotated(tmp_path / "modes" / "turned.jpg", photo(1))
    for path in [*(tmp_path / "modes" / name for name in wanted), tmp_path / "modes" / "turned.jpg"]:
        with Image.open(path) as picture:
            if picture.mode in ("I", "F", "I;16", "I;16B"):
                with pytest.raises(ValueError, match=r"image 0 has Pillow's mode I.*give image\.convert"):
                    ImageList([picture]).image(0)
                continue
            found = ImageList([picture]).image(0)
            assert found.dtype == np.uint8 and found.shape == read_image(path).shape
            assert np.abs(found.astype(int) - read_image(path)).max() <= 1, path  # decoders round differently


def test_a_damaged_picture_of_pillow_is_told(tmp_path):
    (path,) = write_photos(tmp_path, 1, (200, 300))
    cut_off(path)
    with pytest.raises(ValueError, match="image 0 is not a readable picture"):
        ImageList([Image.open(path)]).image(0)


def test_an_empty_array_is_no_image():
    for kind in (np.float32, np.uint8):
        with pytest.raises(ValueError, match=r"image 0 is \w+ \(0, 4, 3\); give RGB"):
            ImageList([np.zeros((0, 4, 3), kind)]).image(0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images"),
        ("gone.png", r"gone\.png: no such file or folder"),
        (7, "images are a int"),
    ],
)
def test_what_is_no_list_of_images_is_refused(images, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        ImageList(images)


def test_it_serves_no_task():
    with pytest.raises(ValueError, match="ImageList holds images only; it has no target 'depth'"):
        ImageList(np.zeros((2, 4, 4, 3), np.uint8)).target(0, "depth")
    with pytest.raises(ValueError, match="unknown target 'depth'"):
        ImageList(np.zeros((2, 4, 4, 3), np.uint8), tasks={"depth": {"type": "depth"}})


def test_a_pool_is_split_evenly_and_as_its_spec_says():
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    rest, held = Unlabelled(ImageList(pixels)).split(3)
    numbers = [[int(view.image(index)[0, 0, 0]) for index in range(len(view))] for view in (rest, held)]
    assert numbers == [[0, 2, 3, 4, 6, 7, 9], [1, 5, 8]]
    spec = Unlabelled(ImageList(pixels), held_out=3)
    assert spec.fingerprint == rest.fingerprint != held.fingerprint
    assert rest[7 + 2]["index"] == 2 and int(rest[7 + 2]["image"][0, 0, 0]) == 3
    with pytest.raises(ValueError, match="held_out=10 of 10 images"):
        Unlabelled(ImageList(pixels), held_out=10)
