"""The table of what accelerators can compute at most."""

import pytest

from stormpsr_jax.base.devices import PEAKS, peak_flops


@pytest.mark.parametrize(
    ("kind", "bfloat16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
    ],
)
def test_a_device_has_the_peak_of_the_longest_name_that_it_begins_with(kind, bfloat16):
    assert peak_flops(kind, "bfloat16") == bfloat16


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40", "NVIDIA H1000", "TPU v55"])
def test_a_device_that_is_not_in_the_table_has_no_peak(kind):
    assert peak_flops(kind, "bfloat16") is None


def test_float32_is_never_faster_than_bfloat16():
    assert all(0 < peak.float32 <= peak.bfloat16 for peak in PEAKS.values())


def test_an_unknown_dtype_is_named():
    with pytest.raises(ValueError, match="'float64' is not one of bfloat16, float32"):
        peak_flops("TPU v4", "float64")
