"""Axes of stored normals: every signed order is undone; text that names none is refused."""

from itertools import permutations, product

import numpy as np
import pytest

from symerge_dense.datasets.nyuv2.normals import OWN_AXES, parse_axes

ORDERS = [
    ",".join(sign + letter for sign, letter in zip(signs, letters, strict=True))
    for letters in permutations("xyz")
    for signs in product(("", "-"), repeat=3)
]


@pytest.mark.parametrize("text", ORDERS)
def test_every_signed_order_comes_back_to_ours(text):
    rng = np.random.default_rng(0)
    camera = dict(zip("xyz", rng.normal(size=(3, 4, 5)).astype(np.float32), strict=True))  # right, up, forward
    stored = np.stack([-camera[part[-1]] if part.startswith("-") else camera[part] for part in text.split(",")], -1)
    ours = parse_axes(text).apply(stored)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, np.stack([camera["x"], camera["z"], camera["y"]], -1))


def test_the_48_orders_are_48():
    assert len(ORDERS) == len({parse_axes(text) for text in ORDERS}) == 48


def test_our_own_order_changes_nothing_and_zero_stays_zero():
    normals = np.random.default_rng(1).normal(size=(3, 4, 3)).astype(np.float32)
    assert np.array_equal(parse_axes(OWN_AXES).apply(normals), normals)
    zero = parse_axes("-x,-y,-z").apply(np.zeros((2, 2, 3), np.float32))
    assert not zero.any() and not np.signbit(zero).any()


def test_known_conventions():
    wall, floor = np.float32([[[0, 0, -1]]]), np.float32([[[0, -1, 0]]])  # in OpenCV's axes
    axes = parse_axes(" +x, -y, z ")
    assert axes.apply(wall).tolist() == [[[0, -1, 0]]] and axes.apply(floor).tolist() == [[[0, 0, 1]]]


@pytest.mark.parametrize(
    "text",
    ["", "x,z", "x,z,y,x", "x,x,y", "x;z;y", "xzy", "a,b,c", "x,--z,y", "X,Z,Y", "x,z,y2", None, ("x", "z", "y")],
)
def test_other_text_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"normal_axes=.*x \(right\), y \(up\) and z.*'x,z,y' or 'x,-y,z'"):
        parse_axes(text)
