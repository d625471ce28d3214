"""Von Mises-Fisher functions against mpmath, closed forms and their own definition."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import integrate

from ltlib import vmf

DIMS = (2, 3, 8, 16, 32, 64, 65, 66, 127, 128, 512, 1024, 2048)
KAPPAS = (1e-8, 1e-3, 0.1, 1.0, 7.0, 30.0, 120.0, 606.0, 2.7e3, 1e4, 1e5)


def exact(kappa, dim):
    """log C_p and A_p with 40 digits, from the Bessel functions."""
    with mp.workdps(40):
        order, kappa = mp.mpf(dim) / 2 - 1, mp.mpf(kappa)
        low = mp.besseli(order, kappa, maxterms=10**6)
        high = mp.besseli(order + 1, kappa, maxterms=10**6)
        log_c = mp.mpf(dim) / 2 * mp.log(2 * mp.pi) + mp.log(low) - order * mp.log(kappa)
        return float(log_c), float(high / low)


@pytest.mark.parametrize("dim", DIMS)
def test_both_functions_agree_with_forty_digits(dim):
    kappa = torch.tensor(KAPPAS, dtype=torch.float64)
    log_c, ratio = torch.tensor([exact(k, dim) for k in KAPPAS], dtype=torch.float64).T
    error = (vmf.log_normalizer(kappa, dim) - log_c).abs() / log_c.abs().clamp_min(1)
    assert error.max() <= 2e-12
    torch.testing.assert_close(vmf.bessel_ratio(kappa, dim), ratio, rtol=3e-12, atol=0)
    # The same kappa in float32 is another number, so compare at the rounded one.
    single = kappa.float()
    rounded = torch.tensor([exact(k, dim)[1] for k in single.tolist()], dtype=torch.float64)
    torch.testing.assert_close(vmf.bessel_ratio(single, dim).double(), rounded, rtol=1.2e-7, atol=0)


def test_both_functions_agree_with_forty_digits_at_random_places():
    rng = np.random.default_rng(0)
    for dim in rng.integers(2, 300, size=40).tolist():
        kappa = 10 ** rng.uniform(-2, 5)
        log_c, ratio = exact(kappa, dim)
        point = torch.tensor(kappa, dtype=torch.float64)
        assert vmf.bessel_ratio(point, dim).item() == pytest.approx(ratio, rel=3e-12)
        error = abs(vmf.log_normalizer(point, dim).item() - log_c) / max(1, abs(log_c))
        assert error <= 2e-12, (dim, kappa)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 3.0), (5, 0.7), (9, 20.0), (40, 11.0)])
def test_normalizer_is_the_integral_of_the_density_over_the_sphere(dim, kappa):
    ring = 2 * math.pi ** ((dim - 1) / 2) / math.gamma((dim - 1) / 2)
    value, _ = integrate.quad(
        lambda angle: math.exp(kappa * math.cos(angle)) * math.sin(angle) ** (dim - 2),
        0,
        math.pi,
        epsabs=0,
        epsrel=1e-12,
    )
    log_c = vmf.log_normalizer(torch.tensor(kappa, dtype=torch.float64), dim)
    assert log_c.item() == pytest.approx(math.log(ring * value), rel=1e-10)


def test_three_dimensions_have_the_closed_form_with_hyperbolic_functions():
    kappa = torch.logspace(-1, 2, 20, dtype=torch.float64)
    ratio = 1 / kappa.tanh() - 1 / kappa
    torch.testing.assert_close(vmf.bessel_ratio(kappa, 3), ratio, rtol=1e-12, atol=0)
    log_c = (4 * math.pi * kappa.sinh() / kappa).log()
    torch.testing.assert_close(vmf.log_normalizer(kappa, 3), log_c, rtol=1e-12, atol=1e-12)


def test_two_dimensions_have_the_bessel_functions_of_torch():
    kappa = torch.logspace(-3, 5, 30, dtype=torch.float64)
    ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
    torch.testing.assert_close(vmf.bessel_ratio(kappa, 2), ratio, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", DIMS)
def test_zero_concentration_gives_the_area_of_the_sphere_and_no_mean(dim):
    zero = torch.zeros((), dtype=torch.float64)
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    assert vmf.log_normalizer(zero, dim).item() == pytest.approx(area, rel=1e-12, abs=1e-12)
    assert vmf.bessel_ratio(zero, dim).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_ratio_increases_from_zero_and_stays_below_one(dim, dtype):
    kappa = torch.cat([torch.zeros(1), torch.logspace(-6, 5, 400)]).to(dtype)
    ratio = vmf.bessel_ratio(kappa, dim)
    assert ratio[0] == 0
    assert ((ratio[1:] > 0) & (ratio[1:] < 1)).all()
    rises = ratio.diff() > 0 if dtype == torch.float64 else ratio.diff() >= 0
    assert rises.all()


@pytest.mark.parametrize("dim", [2, 3, 7, 64, 300])
def test_ratios_of_neighbouring_dimensions_obey_the_recurrence(dim):
    kappa = torch.logspace(-2, 4, 30, dtype=torch.float64)
    here, above = vmf.bessel_ratio(kappa, dim), vmf.bessel_ratio(kappa, dim + 2)
    torch.testing.assert_close(1 / here, dim / kappa + above, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 8, 65, 128, 1024])
def test_derivatives_are_right_twice_over(dim):
    kappa = torch.tensor([0.0, 0.3, 2.0, 40.0, 700.0], dtype=torch.float64, requires_grad=True)
    for function in (vmf.log_normalizer, vmf.bessel_ratio):
        assert torch.autograd.gradcheck(lambda k, f=function: f(k, dim), kappa)
        assert torch.autograd.gradgradcheck(lambda k, f=function: f(k, dim), kappa)


def test_log_normalizer_has_the_ratio_as_derivative():
    kappa = torch.tensor([0.0, 1e-6, 1.0, 1e3, 1e5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(vmf.log_normalizer(kappa, 128).sum(), kappa)
    torch.testing.assert_close(slope, vmf.bessel_ratio(kappa, 128).detach(), rtol=0, atol=0)


def test_ratio_has_slope_one_over_dim_at_zero():
    kappa = torch.zeros(3, requires_grad=True)
    (slope,) = torch.autograd.grad(vmf.bessel_ratio(kappa, 16).sum(), kappa)
    torch.testing.assert_close(slope, torch.full((3,), 1 / 16))


def test_work_does_not_grow_with_the_dimension():
    counts = {
        dim: count_operations(lambda d=dim: vmf.log_normalizer(torch.ones(3), d)) for dim in DIMS
    }
    assert counts[2048] <= counts[128] <= counts[2]
    assert counts[2] < 300


def count_operations(function):
    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.total += 1
            return operation(*args, **(kwargs or {}))

    with Counter() as counter:
        function()
    return counter.total


@pytest.mark.parametrize("dim", [2, 3, 16, 128, 1024])
def test_exact_concentration_inverts_the_ratio(dim):
    kappa = torch.logspace(-3, 4.9, 60, dtype=torch.float64)
    found = vmf.concentration(vmf.bessel_ratio(kappa, dim), dim, "exact")
    torch.testing.assert_close(found, kappa, rtol=1e-8, atol=0)


def test_approximate_concentrations_are_their_formulas():
    length = torch.tensor([0.0, 0.1, 0.5, 0.9])
    authors = 128 * length / (1 - length**2)
    banerjee = length * (128 - length**2) / (1 - length**2)
    torch.testing.assert_close(vmf.concentration(length, 128, "authors"), authors)
    torch.testing.assert_close(vmf.concentration(length, 128, "banerjee"), banerjee)
    exactly = vmf.concentration(length, 128, "exact")
    torch.testing.assert_close(banerjee, exactly, rtol=2e-3, atol=0)


@pytest.mark.parametrize("method", ["authors", "banerjee", "exact"])
def test_concentration_is_cut_off_where_the_mean_has_length_one(method):
    length = torch.tensor([0.0, 1 - 1e-7, 1.0, 1.0 + 1e-6, 2.0])
    kappa = vmf.concentration(length, 64, method)
    assert kappa.tolist() == [0, 1e5, 1e5, 1e5, 1e5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_shape_dtype_and_strides_of_the_input_are_respected(dtype):
    kappa = torch.arange(12, dtype=torch.float32).view(3, 4).T.to(dtype)
    for function in (vmf.log_normalizer, vmf.bessel_ratio):
        value = function(kappa, 10)
        assert value.shape == (4, 3)
        assert value.dtype == dtype
        torch.testing.assert_close(value[2, 1], function(kappa[2, 1], 10))
    assert vmf.bessel_ratio(torch.zeros(0), 5).shape == (0,)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="dim must be >= 2, got 1"):
        vmf.bessel_ratio(torch.ones(1), 1)
    with pytest.raises(TypeError, match="floating point"):
        vmf.log_normalizer(torch.ones(1, dtype=torch.int64), 8)
    with pytest.raises(ValueError, match="'newton'"):
        vmf.concentration(torch.ones(1), 8, "newton")


def test_released_recurrence_is_sound_at_first_and_then_wrong():
    kappa = torch.tensor([100.0, 606.0, 1e3, 5e3, 1e5], dtype=torch.float64)
    log_c, ratio = vmf.truncated_recurrence(kappa, 128)
    error = (log_c - vmf.log_normalizer(kappa, 128)).abs()
    # Known errors of the authors' code, measured against mpmath.
    assert error[0] < 1e-9
    assert error[1] == pytest.approx(2e-9, rel=0.5)
    assert error[2] == pytest.approx(5e-6, rel=0.5)
    assert error[3] == pytest.approx(0.13, rel=0.1)
    assert error[4] == pytest.approx(2.8, rel=0.05)
    assert ratio[4] > 1 > vmf.bessel_ratio(kappa, 128)[4]
    log_c, _ = vmf.truncated_recurrence(kappa[:3], 1024)
    torch.testing.assert_close(log_c, vmf.log_normalizer(kappa[:3], 1024), rtol=1e-11, atol=1e-9)
    with pytest.raises(ValueError, match="even"):
        vmf.truncated_recurrence(kappa, 127)
