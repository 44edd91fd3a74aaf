"""Images of every mode, orientation and kind of damage, as files of users have them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from builders.photos import cut_off, photo, write_hidden_files, write_mixed_photos, write_photos, write_rotated
from PIL import Image, ImageOps

from symerge_dense.datasets.image_files import find_images, image_size, read_image, size_if_whole
from symerge_dense.datasets.image_folder import ImageFolder
from symerge_dense.datasets.unlabelled import Unlabelled


def test_every_mode_is_read_as_it_looks(tmp_path):
    wanted = write_mixed_photos(tmp_path)
    assert len(wanted) == 14
    for name, pixels in wanted.items():
        found = read_image(tmp_path / name)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, pixels, err_msg=name)
        assert image_size(tmp_path / name) == size_if_whole(tmp_path / name) == (48, 64)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    write_rotated(path, photo(1, (24, 40)), orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    found = read_image(path)
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).max() <= 1
    assert image_size(path) == size_if_whole(path) == upright.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_same_pixels_as_opencv(tmp_path, suffix):
    (path,) = write_photos(tmp_path, 1, suffix=suffix)
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])
    grey = tmp_path / f"grey{suffix}"
    cv2.imwrite(str(grey), photo(3)[..., 0])
    np.testing.assert_array_equal(read_image(grey), cv2.imread(str(grey))[..., ::-1])


def test_half_transparent_is_a_blend_with_white(tmp_path):
    Image.new("RGBA", (3, 2), (100, 0, 255, 128)).save(tmp_path / "a.png")
    share = 128 / 255
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png")[0, 0], np.round([100 * share + 255 * (1 - share), 255 * (1 - share), 255])
    )
    marked = Image.new("P", (3, 2), 1)
    marked.putpalette([9, 9, 9, 40, 50, 60])
    marked.save(tmp_path / "b.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[1, 2], (40, 50, 60))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("damage", ["cut off", "empty", "text"])
def test_broken_files_are_named(tmp_path, suffix, damage):
    (path,) = write_photos(tmp_path, 1, (200, 300), suffix)
    if damage == "cut off":
        cut_off(path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"<html>404</html>")
    for read in (read_image, size_if_whole):
        with pytest.raises(ValueError, match=rf"0000\{suffix}: not a readable image .*replace it or remove it"):
            read(path)


def test_flipped_bit_of_a_png_is_found_without_decoding(tmp_path):
    (path,) = write_photos(tmp_path, 1, (200, 300), ".png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a readable image"):
        size_if_whole(path)


def test_jpeg_with_a_thumbnail_that_is_cut_off_is_found(tmp_path):
    (path,) = write_photos(tmp_path, 1, (200, 300))
    body, thumbnail = path.read_bytes(), write_photos(tmp_path / "thumb", 1, (16, 24))[0].read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path.write_bytes(body[:2] + segment + body[2:])
    assert size_if_whole(path) == (200, 300)
    cut_off(path)
    with pytest.raises(ValueError, match="cut off"):
        size_if_whole(path)


def test_fill_bytes_before_a_marker_are_no_damage(tmp_path):
    (path,) = write_photos(tmp_path, 1)
    whole, data = read_image(path), path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xff" + data[2:])
    np.testing.assert_array_equal(read_image(path), whole)
    assert size_if_whole(path) == (48, 64)


def test_numbers_are_no_colours(tmp_path):
    cv2.imwrite(str(tmp_path / "depth.tif"), np.ones((4, 6), np.float32))
    with pytest.raises(ValueError, match=r"depth\.tif: holds 32-bit numbers.*save it with 8 or 16 bits"):
        read_image(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match=r"none\.jpg: cannot be read .*No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match=r"none\.jpg: no such file"):
        image_size(tmp_path / "none.jpg")


def test_find_images_skips_what_is_hidden(tmp_path):
    paths = write_photos(tmp_path, 2)
    write_hidden_files(tmp_path)
    write_photos(tmp_path / ".trash", 1)
    write_photos(tmp_path / "__MACOSX", 1)
    below = write_photos(tmp_path / "more", 1, suffix=".PNG")
    assert find_images(tmp_path) == paths
    assert find_images(tmp_path, recursive=True) == [*paths, *below]


def test_no_image_says_what_is_there(tmp_path):
    write_photos(tmp_path / "sub", 1)
    for name in ("a.heic", "b.heic"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"it holds 2 \.heic files, 1 folder\); put .*or give recursive=True"):
        find_images(tmp_path)


def test_several_folders(tmp_path):
    first, second = write_photos(tmp_path / "b", 2), write_photos(tmp_path / "a", 1)
    assert ImageFolder([tmp_path / "b", tmp_path / "a"]).files == [*first, *second]
    assert ImageFolder(tmp_path, recursive=True).files == [*second, *first]
    for roots in ([], None, [tmp_path / "a", tmp_path / "b" / ".." / "a"]):
        with pytest.raises(ValueError, match="a list of different folders"):
            ImageFolder(roots)


def test_portrait_among_landscape_is_one_sentence(tmp_path):
    write_photos(tmp_path, 3)
    write_rotated(tmp_path / "0002.jpg", photo())
    with pytest.raises(ValueError) as caught:
        ImageFolder(tmp_path).check_images()
    message = str(caught.value)
    assert "0000.jpg is 48 x 64 pixels" in message and "0002.jpg is 64 x 48" in message
    assert "size=(height, width), for instance size=(48, 64)" in message and "\n" not in message
    Unlabelled(ImageFolder(tmp_path), limit=2).check_images()
    ImageFolder(tmp_path, size=(32, 32)).check_images()


def test_all_broken_images_are_found_at_once(tmp_path, capsys):
    for path in write_photos(tmp_path, 15)[1:13]:
        cut_off(path)
    with pytest.raises(ValueError, match=r"12 of 15 images cannot be read:\n.*0001\.jpg") as caught:
        ImageFolder(tmp_path, size=(8, 8)).check_images()
    assert "0010.jpg" in str(caught.value) and "... and 2 more" in str(caught.value)
    assert capsys.readouterr().out == ""
