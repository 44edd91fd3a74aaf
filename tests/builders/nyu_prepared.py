"""A small prepared NYUv2 of true structure for the checks: scenes of ``nyu_scene`` in the npy layout, sound."""

from functools import cache

import cv2
import numpy as np

from builders.nyu_scene import scene
from symerge_dense.datasets.class_names import NYU40_TO_13

SIZE = (96, 128)
COUNTS = {"train": 12, "val": 10}
FOLDERS = ("image", "label", "depth", "normal")
WARM = np.array([1.1, 0.95, 0.8])  # random colours have no lamp of their own


@cache
def arrays(number):
    """{folder: array} of the scene, as stored. Neighbouring numbers show unlike scenes, as they do in NYUv2."""
    frame = scene(number * 5 % 24)
    step = 480 // SIZE[0]
    nearest = (slice(step // 2, None, step),) * 2
    label40, depth, normal = frame.label40[nearest], frame.depth[nearest], frame.normal[nearest]
    image = cv2.resize(frame.image, SIZE[::-1], interpolation=cv2.INTER_AREA) / 255
    label = np.where(label40 > 0, np.array(NYU40_TO_13)[label40.astype(int) - 1], -1)
    return {
        "image": (image * WARM).clip(0, 1),
        "label": label.astype(np.float32),
        "depth": depth[..., None],
        "normal": normal,
    }


def write_prepared(root):
    """The sound set: 12 train and 10 val images."""
    number = 0
    for split, count in COUNTS.items():
        for folder in FOLDERS:
            (root / split / folder).mkdir(parents=True)
        for index in range(count):
            for folder, array in arrays(number).items():
                np.save(root / split / folder / f"{index}.npy", array)
            number += 1
    return root
