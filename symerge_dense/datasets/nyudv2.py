"""NYUv2 as NYUDv2.tar.gz, the packaging of ATRC and InvPT: PNG images, labels and normals, 425 x 560, 40 classes."""

from __future__ import annotations

from typing import ClassVar

from symerge_dense.datasets.nyu_listed import Flavour, ListedFrames


class NYUDv2(ListedFrames):
    """NYUDv2 as ATRC (Bruggemann et al. 2021, arXiv 2104.13874) and InvPT (Ye and Xu 2022, arXiv 2203.07997) read it.

    Frames are 425 x 560: ``crop='eigen'`` is refused. Their place in the 480 x 640 frame, which ``normals='depth'``
    needs, is not documented with the files: it is inferred from their size, which is that of ``BENCHMARK_CROP``. Nor
    are the axes of the stored normals: Eigen and Fergus's, until ``normal_axes`` says otherwise. The archive's padding
    to 448 x 576 is the training code's and is not done here. Arguments and errors: ``ListedFrames``.
    """

    DEFAULT_SIZE: ClassVar[tuple[int, int]] = (425, 560)
    packaging: ClassVar[str] = "nyudv2"
    flavours: ClassVar[tuple[Flavour, ...]] = (
        Flavour("ATRC's and InvPT's", images=".png", segmentation=".png", normals=".png", depth=".npy"),)
