"""Linear algebra of the matrix methods: weights as matrices, truncated SVD, polar factor.

Everything is computed in float64. There, eigenvectors of the smaller Gram matrix are as good as an SVD in float32 and
several times faster, for singular values down to ``ILL_CONDITIONED`` of the largest. Only a matrix with relevant values
below that is decomposed directly. Values below ``NEGLIGIBLE`` of the largest are rounding of float32 weights: their
directions are arbitrary and differ between machines, so every result leaves them out. A zero matrix has none. More is
rounding where task vectors were added or projected out, or are small beside the stored weights: ``floor`` says so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

NEGLIGIBLE = 1e-6
POWER_STEPS = 8  # of the power iteration: exact to a few percent, which is all that a threshold needs
ILL_CONDITIONED = 1e-5


class SVD(NamedTuple):
    """Singular triplets, float64.

    Args:
        left: left singular vectors (m, k).
        values: singular values (k,), the largest first.
        right: right singular vectors (k, n).
    """

    left: Tensor
    values: Tensor
    right: Tensor


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix, in the order of ``torch.nn.functional.unfold``.

    Args:
        weight: a matrix (m, n), or a kernel (O, I, kh, kw).

    Returns:
        (m, n), or (O, I * kh * kw); a view where the memory layout allows it.
    """
    return rearrange(weight, "o ... -> o (...)")


def largest_singular_value(matrix: Tensor) -> float:
    """The largest singular value, to a few percent and never above it, by a power iteration from the heaviest row.

    Args:
        matrix: (m, n).
    """
    if not matrix.numel() or not matrix.any():
        return 0.0
    wide = matrix.double()
    vector, value = wide[int(wide.norm(dim=1).argmax())], 0.0
    for _ in range(POWER_STEPS):
        image = wide @ (vector / vector.norm())
        value = float(image.norm())
        vector = wide.T @ (image / value)
    return value


def svd(matrix: Tensor, rank: int | None = None, floor: float = 0.0) -> SVD:
    """The largest singular triplets of a matrix; signs of the vectors are arbitrary, but fit within a triplet.

    Args:
        matrix: (m, n).
        rank: how many triplets; None for min(m, n). There are fewer where the rest is negligible.
        floor: singular values up to this one are negligible, too.
    """
    count = min(matrix.shape) if rank is None else min(rank, *matrix.shape)
    peak = float(matrix.abs().max()) if matrix.numel() else 0.0
    if peak == 0.0 or count < 1:
        rows, columns = matrix.shape
        none = matrix.new_zeros(0, dtype=torch.float64)
        return SVD(none.reshape(rows, 0), none, none.reshape(0, columns))
    scaled = matrix.to(torch.float64, copy=True).div_(peak)  # so that squares neither vanish nor overflow
    left, values, right = _decompose(scaled, count)
    kept = int((values * peak > floor).sum())
    return SVD(left[:, :kept], values[:kept] * peak, right[:kept])


def polar(matrix: Tensor) -> Tensor:
    """The orthogonal factor U V^T of a matrix U S V^T, float64: the nearest matrix with orthonormal columns.

    (With orthonormal rows, where the matrix is wide.) Without full rank it is the partial isometry: negligible
    directions map to zero. Parallel columns share their length.

    Args:
        matrix: (m, n).
    """
    left, _, right = svd(matrix)
    return left @ right


def _decompose(matrix: Tensor, count: int) -> SVD:
    found = _from_gram(matrix, count)
    if found.values[-1] >= ILL_CONDITIONED * found.values[0]:
        return found
    try:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # documented, but torch's stubs lack it
        # No convergence: keep what the Gram matrix gives reliably.
        return _relevant(found, ILL_CONDITIONED)
    return _relevant(SVD(left[:, :count], values[:count], right[:count]), NEGLIGIBLE)


def _from_gram(matrix: Tensor, count: int) -> SVD:
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = _from_gram(matrix.T, count)
        return SVD(left.T, values, right.T)
    vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :count]
    image = vectors.T @ matrix
    values = image.norm(dim=1)  # more exact than roots of eigenvalues
    left, values, right = _relevant(SVD(vectors, values, image), NEGLIGIBLE)
    return SVD(left, values, right.div_(values[:, None]))


def _relevant(found: SVD, threshold: float) -> SVD:
    """Without the triplets at the end whose values are at most ``threshold`` of the first."""
    count = int((found.values > threshold * found.values[0]).sum())
    return SVD(found.left[:, :count], found.values[:count], found.right[:count])
