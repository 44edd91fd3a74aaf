"""Linear quantisation: by hand, against NumPy in float64, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from symerge_dense.merging.quantised import PER, Quantised, dequantise, quantise, quantised_layouts


def back(vector: Tensor, bits: int, per: str = "tensor") -> Tensor:
    return dequantise(quantise(vector, bits, per), tuple(vector.shape), bits, per, vector.dtype)


def test_two_bits_by_hand() -> None:
    found = quantise(torch.tensor([-1.0, 0.0, 0.4, 2.0]), 2)  # step 3 / 3, codes 0, 1, 1, 3
    assert (found.step.tolist(), found.zero.tolist()) == ([1.0], [1])
    assert found.codes.tolist() == [[0b01110000], [0b00010000]]
    assert dequantise(found, (4,), 2, "tensor", torch.float32).tolist() == [-1.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("values", "bits", "step", "zero", "expected"),
    [
        ([-4.0, -2.25, -1.0], 2, 1.0, 4, [-4.0, -2.0, -1.0]),  # all below 0: the code of 0 lies outside
        ([1.0, 2.25, 4.0], 2, 1.0, -1, [1.0, 2.0, 4.0]),
        ([-1.5, 0.0, 2.0], 3, 0.5, 3, [-1.5, 0.0, 2.0]),
        ([-0.25, 0.75], 1, 1.0, 0, [0.0, 1.0]),  # off by a quarter of a step, the zero stays
        ([0.0, 0.0, 0.0], 3, 0.0, 0, [0.0, 0.0, 0.0]),
        ([7.0, 7.0], 3, 7 * 2.0**-24, -(2**24), [7.0, 7.0]),
        ([-7.0], 8, 7 * 2.0**-24, 2**24, [-7.0]),
    ],
)
def test_ranges_by_hand(values: list[float], bits: int, step: float, zero: int, expected: list[float]) -> None:
    found = quantise(torch.tensor(values), bits)
    assert (found.step.item(), found.zero.item()) == (step, zero)
    assert dequantise(found, (len(values),), bits, "tensor", torch.float32).tolist() == expected


def codes_by_numpy(rows: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    step = (rows.max(1, keepdims=True) - rows.min(1, keepdims=True)) / (2**bits - 1)
    zero = np.round(-rows.min(1, keepdims=True) / step)
    return np.clip(np.round(rows / step) + zero, 0, 2**bits - 1), step, zero


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("shape", [(5, 3, 3), (7, 11), (64, 33), (3, 2)])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_those_of_numpy_and_errors_within_half_a_step(bits: int, shape: tuple[int, ...], per: str) -> None:
    vector = (torch.randn(shape, generator=torch.Generator().manual_seed(bits)) + 0.3).double()
    found = quantise(vector, bits, per)
    assert tuple((tuple(part.shape), part.dtype) for part in found) == quantised_layouts(shape, bits, per)
    assert found.codes.nbytes == bits * -(-vector.numel() // 8)
    rows = vector.numpy().reshape(shape[0] if per == "channel" else 1, -1)
    codes, step, zero = codes_by_numpy(rows, bits)
    planes = np.unpackbits(found.codes.numpy(), axis=1)[:, : vector.numel()]
    own = (planes * (1 << np.arange(bits))[:, None]).sum(0).reshape(rows.shape)
    assert (own != codes).mean() < 0.02  # the step is rounded to float32, which may turn a tie
    restored = dequantise(found, shape, bits, per, torch.float64).numpy().reshape(rows.shape)
    np.testing.assert_allclose(restored, step * (own - zero), atol=1e-5)
    assert (np.abs(restored - rows) <= step / 2 * (1 + 1e-5)).all()


def test_channels_have_ranges_of_their_own() -> None:
    vector = torch.tensor([[1.0, -1.0, 0.2], [100.0, -100.0, 20.0]])
    error = (back(vector, 4, "channel") - vector).abs().amax(1)
    assert error[0] <= 1 / 15 + 1e-6 < (back(vector, 4) - vector).abs()[0].max()
    assert error[1] <= 100 / 15 + 1e-4


def test_unchanged_weights_stay_unchanged() -> None:
    vector = torch.where(torch.rand(999) > 0.5, torch.randn(999), 0.0)
    for bits in range(2, 9):
        assert not bool(back(vector, bits)[vector == 0].any())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="delta of a holds NaN or infinite values; train or export the expert again"):
        quantise(torch.tensor([1.0, value]), 3, what="delta of a")
    with pytest.raises(ValueError, match="has a range that float32 cannot hold; train or export"):
        quantise(torch.tensor([-1e300, 1e300], dtype=torch.float64), 3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("codes", torch.zeros(4, 2, dtype=torch.uint8), r"codes of w: \(4, 2\) of torch.uint8, but 3 bits per value"),
        ("codes", torch.zeros(3, 1, dtype=torch.uint8), r"are \(3, 2\) of torch.uint8; copy the file again"),
        ("step", torch.ones(2), r"step of w: \(2,\) of torch.float32"),
        ("zero", torch.ones(1), "zero of w"),
        ("step", torch.tensor([-1.0]), "step of w: NaN, infinite or below 0"),
        ("step", torch.tensor([float("nan")]), "copy the file again"),
    ],
)
def test_damaged_codes_are_refused(field: str, value: Tensor, message: str) -> None:
    found: Quantised = quantise(torch.randn(3, 5), 3)._replace(**{field: value})
    with pytest.raises(ValueError, match=message):
        dequantise(found, (3, 5), 3, "tensor", torch.float32, "w")
