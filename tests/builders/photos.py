"""Small folders of photos: alike, of mixed sizes, modes and orientations, broken ones, and hidden files beside them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROTATED = 6  # EXIF's orientation of a camera held upright: turn the stored pixels by 90 degrees clockwise


def photo(seed=0, size=(48, 64)):
    """A smooth colour picture, uint8 (H,W,3) RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def write_photos(folder, count=4, size=(48, 64), suffix=".jpg"):
    """``0000.jpg``, ``0001.jpg``, ... of one size; returns the paths."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder, f"{index:04d}{suffix}") for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(photo(index, size)).save(path)
    return paths


def write_rotated(path, pixels, orientation=ROTATED):
    """An image file whose EXIF orientation says how to turn the stored ``pixels``."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def write_mixed_photos(folder, size=(48, 64)):
    """One picture in all modes that users have, ``size`` upright; returns {name: the RGB that must be read}."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rgb = photo(7, size)
    image, grey = Image.fromarray(rgb), rgb[..., 1]
    grey3 = np.repeat(grey[..., None], 3, -1)
    alpha = np.where(np.arange(size[1]) < size[1] // 2, 255, 0).astype(np.uint8) * np.ones((size[0], 1), np.uint8)
    white = np.where(alpha[..., None] == 255, rgb, 255)
    white_grey = np.where(alpha[..., None] == 255, grey3, 255)
    palette = image.quantize(16)
    cmyk = image.convert("CMYK")
    wanted = {"rgb.png": rgb, "rgb.bmp": rgb, "rgb.tif": rgb, "rgb.ppm": rgb, "lossless.webp": rgb}
    for name in wanted:
        image.save(folder / name, **({"lossless": True} if name.endswith("webp") else {}))
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.stack([grey, alpha], -1)).save(folder / "grey_alpha.png")
    Image.fromarray(np.dstack([rgb, alpha])).save(folder / "rgba.png")
    palette.save(folder / "palette.png")
    Image.fromarray(grey > 127).save(folder / "one_bit.png")
    cmyk.save(folder / "cmyk.tif")
    cv2.imwrite(str(folder / "grey16.png"), grey.astype(np.uint16) * 256 + 77)
    cv2.imwrite(str(folder / "rgb16.png"), rgb[..., ::-1].astype(np.uint16) * 256 + 77)
    write_rotated(folder / "rotated.png", np.ascontiguousarray(np.rot90(rgb)))
    wanted |= {"grey.png": grey3, "grey_alpha.png": white_grey, "rgba.png": white, "grey16.png": grey3}
    wanted |= {"palette.png": np.asarray(palette.convert("RGB")), "rgb16.png": rgb, "rotated.png": rgb}
    wanted |= {
        "one_bit.png": np.where(grey3 > 127, 255, 0).astype(np.uint8),
        "cmyk.tif": np.asarray(cmyk.convert("RGB")),
    }
    return wanted


def write_hidden_files(folder, like=".jpg"):
    """What macOS and Windows leave in folders; ``like`` is the suffix of the files that stand there."""
    for name in (".DS_Store", f"._0{like}", f"._0000{like}", "Thumbs.db", "desktop.ini"):
        Path(folder, name).write_bytes(b"\x00\x05\x16\x07 not for you")


def cut_off(path, share=0.6):
    """Keep the first part of a file, as an interrupted copy does."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


def labels(seed=0, size=(48, 64)):
    """Class numbers 0..3 with 255, metres with 0, and saliency 0..1, each where it would be in an own data set."""
    rng = np.random.default_rng((7, seed))
    height, width = size
    blocks = rng.integers(0, 4, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    blocks[:2], metres = 255, rng.uniform(0.5, 5.3, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1).round(3)
    metres[:, :3] = 0
    return {"segmentation": blocks, "depth": metres, "saliency": rng.integers(0, 256, size, dtype=np.uint8) / 255}


def write_labelled_photos(root, count=4, size=(48, 64)):
    """``photos/NNNN.jpg`` with palette ``masks``, 16-bit ``depth`` in millimetres and 8-bit ``saliency`` as PNG."""
    root = Path(root)
    write_photos(root / "photos", count, size)
    for folder in ("masks", "depth", "saliency"):
        (root / folder).mkdir(exist_ok=True)
    for index in range(count):
        stored = labels(index, size)
        mask = Image.fromarray(stored["segmentation"], "P")
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
        mask.save(root / "masks" / f"{index:04d}.png")
        millimetres = (stored["depth"] * 1000).round().astype(np.uint16)
        cv2.imwrite(str(root / "depth" / f"{index:04d}.png"), millimetres)
        cv2.imwrite(str(root / "saliency" / f"{index:04d}.png"), (stored["saliency"] * 255).round().astype(np.uint8))
    return root
