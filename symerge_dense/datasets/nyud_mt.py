"""NYUv2 as NYUD_MT.tgz: the multi-task folders of ASTMT and of Vandenhende et al.'s survey, 40 classes."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.datasets.nyu_listed import Flavour, ListedFrames


class NYUDMT(ListedFrames):
    """NYUD_MT in either of its flavours, which are told apart by their files.

    Vandenhende et al. (2021, arXiv 2004.13379): JPEG images, PNG labels, normals and depth as .npy.
    ASTMT (Maninis et al. 2019, arXiv 1904.08918): JPEG images and normals, labels and depth as .mat.

    Frames are 425 x 560 (``BENCHMARK_CROP``) or the whole 480 x 640: the files say. Which way the channels of the
    stored normals point is nowhere documented; they are taken to be Eigen and Fergus's until ``normal_axes`` says
    otherwise. JPEG normals have lost up to a few degrees. Arguments and errors: ``ListedFrames``.
    """

    packaging: ClassVar[str] = "nyud_mt"
    flavours: ClassVar[tuple[Flavour, ...]] = (
        Flavour("Vandenhende's", images=".jpg", segmentation=".png", normals=".npy", depth=".npy"),
        Flavour("ASTMT's", images=".jpg", segmentation=".mat", normals=".jpg", depth=".mat"))
