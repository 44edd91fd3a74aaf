"""Surfaces seen by a pinhole camera: normals from depth, and depth from normals, on whole batches.

Vectors are (x right, z forward, y up), the order of ``tasks.normals``, and normals point towards the camera.
Shape legend: N images, h x w pixels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from symerge_dense.datasets.nyuv2.camera import Intrinsics
from symerge_dense.tasks.normals import unit

SIMILAR = 0.1  # relative difference of depth, at which a neighbour of a plane weighs exp(-1/2)
APART = 0.4  # relative difference from which a neighbour's plane is another surface
ALIKE = 0.95  # least cosine of the normals of neighbours on one surface, GeoNet++'s alpha
GRAZING = 0.05  # least cosine between a ray and a normal: beyond it a plane says nothing about depth
SHIFTED = 0.002  # relative misfit by which a plane of a neighbour must be better than the pixel's own
ENOUGH = 1 / 3  # share of a window that must have depth like the pixel's
UNKNOWN = 1e6  # misfit where there is no plane
ROUNDING = 1e-6  # relative misfit of an exact plane
FLAT = 1e-3  # least variance of the neighbours' places, pixels^2, to fit a plane through them
NOISE = 0.01  # added to variances of unit vectors, about 6 degrees: no normal is surer


def rays(camera: Intrinsics, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Rays of all pixels, 1 long along the optical axis, (1,3,h,w).

    Args:
        camera: at this size.
        size: (h,w).
        device: of the result.
    """
    down = torch.arange(size[0], dtype=torch.float32, device=device)[:, None].expand(size)
    across = torch.arange(size[1], dtype=torch.float32, device=device)[None].expand(size)
    parts = [(across - camera.cx) / camera.fx, torch.ones_like(across), (camera.cy - down) / camera.fy]
    return torch.stack(parts)[None]


def neighbours(layers: Tensor, window: int) -> Iterator[tuple[int, int, Tensor]]:
    """For every place in a window: rows down, columns across, and the values of all pixels' neighbours there.

    Args:
        layers: (N,C,h,w); beyond the border neighbours are 0.
        window: odd number of pixels.
    """
    reach, (height, width) = window // 2, layers.shape[-2:]
    wide = F.pad(layers, (reach, reach, reach, reach))
    for down in range(window):
        for across in range(window):
            yield down - reach, across - reach, wide[..., down : down + height, across : across + width]


def normals_from_depth(depth: Tensor, camera: Intrinsics, window: int) -> Tensor:
    """Unit normals towards the camera; the zero vector where there is no depth, or too little around.

    A plane seen by a pinhole has a 1/depth that is linear in the pixel. So a plane is fitted to 1/depth in the window
    around every pixel by least squares, exactly; neighbours weigh less the more their depth differs, for they lie on
    another surface. Each pixel takes the plane with the least misfit among those of its window that meet it: normals
    stay sharp at creases.

    Args:
        depth: metres, or in any other unit, (N,1,h,w).
        camera: at this size.
        window: odd number of pixels.

    Returns:
        float32 (N,3,h,w).
    """
    inverse, ray = _inverse(depth), rays(camera, (depth.shape[-2], depth.shape[-1]), depth.device)
    slope_x, slope_y, here, misfit = _planes(inverse, window)
    # the pixel is fx rays to the right of the principal point and fy rays below it
    forward = here - slope_x * camera.fx * ray[:, 0:1] + slope_y * camera.fy * ray[:, 2:3]
    normals = unit(torch.cat([-slope_x * camera.fx, -forward, slope_y * camera.fy], dim=1))
    over = here / (normals * ray).sum(1, keepdim=True).clamp(max=-1e-6)  # 1/depth on the plane is over * (n . ray)
    best, chosen = misfit - SHIFTED, normals
    for _, _, other in neighbours(torch.cat([1 / (misfit + ROUNDING), over, normals], dim=1), window):
        error, plane, normal = 1 / other[:, :1].clamp(min=1 / UNKNOWN), other[:, 1:2], other[:, 2:]
        apart = (plane * (normal * ray).sum(1, keepdim=True) - inverse).abs()
        better = (error < best) & (apart < SIMILAR * inverse)
        best, chosen = error.where(better, best), normal.where(better, chosen)
    return chosen * ((best < UNKNOWN / 2) & (inverse > 0))


def _planes(inverse: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit a plane to 1/depth around every pixel: slopes, value at the pixel, relative rms misfit; (N,1,h,w) each."""
    sums: list[Tensor] = [torch.zeros_like(inverse) for _ in range(10)]
    for down, across, other in neighbours(inverse, window):
        apart = (other - inverse) / (SIMILAR * inverse).clamp(min=1e-12)
        weight = torch.exp(-0.5 * apart.square()) * (other > 0)
        gap = other - inverse
        rise = weight * gap
        places = weight, weight * across, weight * down, weight * across**2, weight * down**2, weight * across * down
        for total, term in zip(sums, (*places, rise, rise * across, rise * down, rise * gap), strict=True):
            total += term
    count = sums[0].clamp(min=1e-12)
    x, y, xx, yy, xy, z, xz, yz, zz = (total / count for total in sums[1:])
    xx, yy, xy, xz, yz, zz = xx - x * x, yy - y * y, xy - x * y, xz - x * z, yz - y * z, zz - z * z
    determinant = xx * yy - xy * xy
    fits = (determinant > FLAT) & (count > ENOUGH * window**2) & (inverse > 0)
    determinant = determinant.where(fits, torch.ones_like(determinant))
    slope_x, slope_y = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    variance = (zz - slope_x * xz - slope_y * yz).clamp(min=0)
    misfit = (variance.sqrt() / inverse.clamp(min=1e-12)).where(fits, torch.full_like(inverse, UNKNOWN))
    return slope_x, slope_y, inverse + z - slope_x * x - slope_y * y, misfit


def depth_from_normals(depth: Tensor, normals: Tensor, camera: Intrinsics, window: int) -> Tensor:
    """Depth refined by kernel regression over normals (GeoNet++, arXiv 2012.06980, section 3.3).

    The plane through each neighbour, across its normal, predicts the pixel's depth; predictions are averaged, weighed
    by the cosine of the two normals, if it is at least 0.95. Unlike there, a prediction also weighs less the more it
    differs from the pixel's own depth (Tukey's biweight, 0 from 40 % on): parallel surfaces at two depths are two.

    Args:
        depth: (N,1,h,w); a pixel whose depth is not positive stays as it is.
        normals: unit vectors towards the camera (N,3,h,w); zero where unknown.
        camera: at this size.
        window: odd number of pixels.

    Returns:
        float32 (N,1,h,w).
    """
    inverse, ray = _inverse(depth), rays(camera, (depth.shape[-2], depth.shape[-1]), depth.device)
    length = ray.square().sum(1, keepdim=True).sqrt()
    known = (normals.square().sum(1, keepdim=True) > 0) & (inverse > 0)
    # a plane n . p = d meets the pixel's ray at depth d / (n . ray); 1/d = (1/depth) / (n . own ray)
    facing = (normals * ray).sum(1, keepdim=True)
    steep = known & (facing < -GRAZING * length)
    over = (inverse / facing.where(steep, -torch.ones_like(facing))) * steep
    total, weights = torch.zeros_like(inverse), torch.zeros_like(inverse)
    for _, _, other in neighbours(torch.cat([over, normals], dim=1), window):
        plane, normal = other[:, :1], other[:, 1:]
        predicted = plane * (normal * ray).sum(1, keepdim=True)  # 1/depth
        alike = (normal * normals).sum(1, keepdim=True)
        apart = (predicted - inverse) / (APART * inverse).clamp(min=1e-12)
        weight = alike * (alike >= ALIKE) * (1 - apart.square()).clamp(min=0).square() * (predicted > 0)
        total += weight / predicted.where(predicted > 0, torch.ones_like(predicted))
        weights += weight
    refined = total / weights.clamp(min=1e-12)
    return refined.where(weights > 0, depth.float())


def spread(normals: Tensor, window: int) -> Tensor:
    """Variance of unit vectors in the window around every pixel, 0..1, (N,1,h,w): 1 - the squared length of their mean.

    Args:
        normals: (N,3,h,w); the zero vector counts as unknown.
        window: odd number of pixels.
    """
    known = (normals.square().sum(1, keepdim=True) > 0).float()
    sums = F.avg_pool2d(torch.cat([normals, known], dim=1), window, 1, window // 2)
    mean = sums[:, :3] / sums[:, 3:].clamp(min=1e-12)
    return (1 - mean.square().sum(1, keepdim=True)).clamp(0, 1)


def fused(expert: Tensor, derived: Tensor, window: int, share: float = 1.0) -> Tensor:
    """Normals of two sources, averaged with weights from their agreement and their variances.

    The share of ``derived`` is max(0, cos) v_e / (v_e + v_d), with the cosine between the two and their variances in
    the window: where they contradict each other, or it is the rougher one, the expert stands.

    Args:
        expert: unit vectors (N,3,h,w).
        derived: unit vectors, zero where unknown, (N,3,h,w).
        window: odd number of pixels.
        share: factor of the share, in [0,1].

    Returns:
        Unit vectors float32 (N,3,h,w).
    """
    ours, theirs = spread(expert, window) + NOISE, spread(derived, window) + NOISE
    agreement = (expert * derived).sum(1, keepdim=True).clamp(min=0)  # 0 where unknown
    part = share * agreement * ours / (ours + theirs)
    return unit((1 - part) * expert + part * derived)


def _inverse(depth: Tensor) -> Tensor:
    value = depth.float()
    known = (value > 0) & value.isfinite()
    return (1 / value.where(known, torch.ones_like(value))) * known
