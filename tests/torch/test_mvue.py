"""MVUE 2:4: exact expectations and variances over all outcomes, against oracles of its own."""

import copy
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from masksolve import errors
from masksolve.torch import (
    MVUELinear,
    check_sparsity,
    desparsify,
    mvue_2_4,
    mvue_2_4_outcomes,
    mvue_linear,
    sparsify,
)

ESTIMATORS = ["exact", "approximate"]
PAIRS = list(combinations(range(4), 2))

# Sorted magnitudes in the cases by which the sources list the probabilities of the pairs.
CASES = {
    "A": [(1, 2, 3, 4), (1, 1, 1, 1), (2, 3, 5, 8), (1, 5, 5, 5)],
    "A to B": [(1, 2, 3, 5), (0, 1, 3, 3), (0, 2, 2, 2), (1, 1, 1, 3)],
    "B": [(1, 4, 5, 8), (0, 2, 3, 4), (1, 10, 12, 20)],
    "B to C": [(1, 2, 3, 6), (0, 1, 3, 4), (0, 0, 3, 3)],
    "C": [(1, 2, 3, 7), (0, 1, 1, 9), (1, 1, 1, 10**9), (0, 0, 2, 5), (0, 0, 0, 3)],
    "zero": [(0, 0, 0, 0)],
}
SORTED = [group for groups in CASES.values() for group in groups]


def published_pairs(group):
    """Probabilities of the pairs of a sorted group by the published cases, exactly."""
    a, b, c, d = map(Fraction, group)
    total, rest = a + b + c + d, a + b + c
    if 2 * a + c > d:
        table = {
            (0, 2): (2 * a + c - d) / (2 * total),
            (0, 3): (2 * a - c + d) / (2 * total),
            (1, 2): (2 * b + c - d) / (2 * total),
            (1, 3): (2 * b - c + d) / (2 * total),
            (2, 3): (c + d - a - b) / total,
        }
    elif rest > d:
        table = {
            (0, 3): 2 * a / total,
            (1, 2): (rest - d) / total,
            (1, 3): (b + d - a - c) / total,
            (2, 3): (c + d - a - b) / total,
        }
    else:
        table = {(i, 3): Fraction(group[i]) / rest for i in range(3)}
    return table


def water_filling(group):
    """Least sum of squares over probabilities, by a root of the threshold: no formula of ours."""
    sizes = np.abs(np.array(group, dtype=float))
    sizes = sizes[sizes > 0]
    if len(sizes) <= 2:
        return float(sizes @ sizes)
    threshold = brentq(
        lambda tau: np.minimum(1, sizes / tau).sum() - 2, sizes.min() / 9, sizes.sum(), xtol=1e-300
    )
    return float((sizes**2 / np.minimum(1, sizes / threshold)).sum())


def groups_of_all_kinds():
    """All cases with all signs and in all orders, and random groups of many scales."""
    rng = np.random.default_rng(0)
    cases = [rng.permutation(g) * rng.choice([-1, 1], 4) for g in SORTED for _ in range(8)]
    wild = rng.normal(size=(500, 4)) ** 7
    return torch.from_numpy(np.vstack([cases, wild, rng.integers(-3, 4, size=(500, 4))]))


def moments(groups, estimator):
    """Expectation of every entry, and of the sum of squares of every group."""
    probabilities, outcomes = mvue_2_4_outcomes(groups, estimator=estimator)
    return (probabilities * outcomes).sum(0), (probabilities * outcomes**2).sum(0).sum(-1)


def is_unbiased(mean, groups):
    scale = groups.abs().amax(-1, keepdim=True)
    return bool(((mean - groups).abs() <= 1e-12 * scale).all())


# ---- the estimator


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_expectation_over_all_outcomes_is_the_tensor(estimator):
    groups = groups_of_all_kinds()
    probabilities, outcomes = mvue_2_4_outcomes(groups, estimator=estimator)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(0), torch.ones_like(groups), atol=1e-14, rtol=0)
    assert ((outcomes != 0).sum(-1) <= 2).all()
    assert is_unbiased((probabilities * outcomes).sum(0), groups)


def test_no_unbiased_estimator_has_a_smaller_variance():
    """The water-filling optimum bounds every estimator with at most two non-zeros from below:
    x_i² = E[y_i·1(y_i≠0)]² <= P(y_i≠0)·E[y_i²], where the probabilities sum to at most 2.
    """
    groups = groups_of_all_kinds()
    _, squares = moments(groups, "exact")
    optimum = [water_filling(group.tolist()) for group in groups]
    torch.testing.assert_close(squares, squares.new_tensor(optimum), rtol=1e-11, atol=0)


def test_no_pair_improves_the_exact_estimator():
    """The mean of squares is convex in the pair probabilities p, and its derivative towards pair
    k is the mean square less the square of outcome k: at an optimum none is negative.
    """
    groups = groups_of_all_kinds()
    gains = {}
    for estimator in ESTIMATORS:
        _, outcomes = mvue_2_4_outcomes(groups, estimator=estimator)
        _, squares = moments(groups, estimator)
        gains[estimator] = ((outcomes**2).sum(-1) / squares - 1).nan_to_num()
    assert (gains["exact"] < 1e-12).all()
    assert (gains["approximate"] > 1e-3).any()


@pytest.mark.parametrize("group", [(1, 2, 3, 4), (1, 1, 2, 4), (1, 3, 4, 6), (1, 1, 2, 6)])
def test_a_linear_programme_over_values_that_depend_on_the_pair_finds_no_better(group):
    """Any probabilities of any integer values on any pair, the optimal values among them."""
    values = range(max(*group, sum(group) // 2) + 1)
    outcomes = []
    for (i, j), worth in product(PAIRS, product(values, repeat=2)):
        outcome = np.zeros(4)
        outcome[[i, j]] = worth
        outcomes.append(outcome)
    outcomes = np.array(outcomes)
    found = linprog(
        (outcomes**2).sum(1),
        A_eq=np.vstack([outcomes.T, np.ones(len(outcomes))]),
        b_eq=[*group, 1],
    )
    _, squares = moments(torch.tensor(group, dtype=torch.float64), "exact")
    assert squares.item() == pytest.approx(found.fun, rel=1e-9)


def test_the_approximate_estimator_is_never_better_than_the_exact_one():
    groups = groups_of_all_kinds()
    _, exact = moments(groups, "exact")
    _, approximate = moments(groups, "approximate")
    assert (approximate >= exact * (1 - 1e-12)).all()
    assert (approximate > exact * 1.01).any()


@pytest.mark.parametrize("group", [g for g in SORTED if sum(g[:3]) > 0])
def test_entries_are_kept_as_often_as_by_the_published_cases(group):
    probabilities, _ = mvue_2_4_outcomes(torch.tensor(group, dtype=torch.float64))
    table = published_pairs(group)
    assert sum(table.values()) == 1
    assert min(table.values()) >= 0
    for entry in range(4):
        ours = sum(probabilities[k, 0].item() for k, pair in enumerate(PAIRS) if entry in pair)
        theirs = sum(p for pair, p in table.items() if entry in pair)
        assert ours == pytest.approx(float(theirs), abs=1e-14)


@pytest.mark.parametrize("group", [(2, 3, 5, 8), (1, 2, 3, 3)])
def test_the_approximate_estimator_draws_one_after_the_other(group):
    probabilities, _ = mvue_2_4_outcomes(
        torch.tensor(group, dtype=torch.float64), estimator="approximate"
    )
    total = Fraction(sum(group))
    for k, (i, j) in enumerate(PAIRS):
        p, q = group[i] / total, group[j] / total
        expected = p * q / (1 - p) + q * p / (1 - q)
        assert probabilities[k, 0].item() == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize("group", [(1, 4, 5, 8), (1, 2, 3, 7)])
def test_the_check_of_bias_finds_formulas_used_outside_their_case(group):
    """The probabilities of case A, cut off at zero, in case B and C: biased, and found to be."""
    a, b, c, d = group
    weights = [0, 2 * a + c - d, 2 * a - c + d, 2 * b + c - d, 2 * b - c + d, 2 * (c + d - a - b)]
    drawn = torch.tensor(weights, dtype=torch.float64).clamp_min(0)
    groups = torch.tensor(group, dtype=torch.float64)
    outcomes = torch.zeros(6, 4, dtype=torch.float64)
    for outcome, pair in zip(outcomes, PAIRS, strict=True):
        outcome[list(pair)] = groups.sum() / 2
    assert not is_unbiased((drawn / drawn.sum()) @ outcomes, groups)
    # And the formulas are those of case A: there they are unbiased.
    assert is_unbiased(moments(groups, "exact")[0], groups)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("group", [(3.0, -1.0, 4.0, 2.0), (5.0, 8.0, -4.0, 1.0), (1, 2, 9, 3)])
def test_pairs_are_drawn_with_their_probabilities(group, estimator):
    draws, other = 20000, ESTIMATORS[1 - ESTIMATORS.index(estimator)]
    groups = torch.tensor(group, dtype=torch.float64).repeat(draws, 1)
    generator = torch.Generator().manual_seed(0)
    kept = mvue_2_4(groups, estimator=estimator, generator=generator) != 0
    assert (kept.sum(1) == 2).all()
    counts = np.array([(kept[:, i] & kept[:, j]).sum().item() for i, j in PAIRS])

    def p_value(name):
        expected = mvue_2_4_outcomes(groups[:1], estimator=name)[0][:, 0, 0].numpy()
        seen = expected > 1e-9
        if counts[~seen].any():
            return 0
        return chisquare(counts[seen], draws * expected[seen] / expected[seen].sum()).pvalue

    assert p_value(estimator) > 0.001
    assert p_value(other) < 1e-9


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_draw_is_one_of_the_outcomes(estimator):
    groups = groups_of_all_kinds()
    drawn = mvue_2_4(groups, estimator=estimator)
    probabilities, outcomes = mvue_2_4_outcomes(groups, estimator=estimator)
    possible = (drawn == outcomes).all(-1) & (probabilities[..., 0] > 1e-15)
    assert possible.any(0).all()


def uniform(*numbers):
    """Stands in for `torch.Tensor.uniform_`: gives out numbers of our choice."""
    given = torch.tensor(numbers, dtype=torch.float64)
    return lambda tensor, **_: tensor.copy_(given.reshape(tensor.shape))


def middle_of(probabilities, pair):
    """A random number at which `pair` is drawn: 1 less the middle of its interval."""
    return 1 - (probabilities[:pair].sum() + probabilities[pair] / 2).item()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_extreme_random_numbers_draw_pairs_that_can_be(dtype, estimator, monkeypatch):
    """0 and the largest number below 1, where every pair but the middle ones is impossible."""
    dust = torch.finfo(dtype).eps / 100
    groups = [[0, 7, -2, 0], [dust, 1, 1, dust], [0, 0, 0, 5], [9, 1, 1, 1]]
    groups = torch.tensor(groups, dtype=dtype)
    for number in (0, 1 - torch.finfo(dtype).eps / 2):
        monkeypatch.setattr(torch.Tensor, "uniform_", uniform(*[number] * 4))
        estimate = mvue_2_4(groups, estimator=estimator)
        torch.testing.assert_close(estimate[0], groups[0])
        torch.testing.assert_close(estimate[2], groups[2])
        if estimator == "exact":
            torch.testing.assert_close(estimate[1], groups[1].round())
            assert estimate[3, 0].item() == pytest.approx(9)


# ---- dtypes, layouts, random numbers


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_kept_and_unbiased_to_its_precision(dtype, estimator):
    groups = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    estimate = mvue_2_4(groups, estimator=estimator)
    assert (estimate.dtype, estimate.shape) == (dtype, groups.shape)
    probabilities, outcomes = mvue_2_4_outcomes(groups, estimator=estimator)
    assert outcomes.dtype == max(dtype, torch.float32, key=lambda each: each.itemsize)
    mean = (probabilities * outcomes).sum(0)
    torch.testing.assert_close(mean, groups.to(mean.dtype))
    assert (estimate == outcomes.to(dtype)).all(-1).any(0).all()


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_lie_along_dim_whatever_the_strides(dim, estimator):
    """The same numbers drawn for the same groups: the last dimension against each other one."""
    base = torch.randn(8, 4, 12, dtype=torch.float64)
    layouts = [base, base.permute(2, 0, 1).contiguous().permute(1, 2, 0), base.flip(0).flip(0)]
    layouts.append(torch.stack([base, base], -1)[..., 1])
    for tensor in layouts:
        _, outcomes = mvue_2_4_outcomes(tensor, dim=dim, estimator=estimator)
        _, rows = mvue_2_4_outcomes(base.movedim(dim, -1), estimator=estimator)
        first = dim + 1 if dim >= 0 else dim
        assert torch.equal(outcomes.movedim(first, -1), rows)
        drawn = [
            mvue_2_4(x, dim=dim, estimator=estimator, generator=torch.Generator().manual_seed(3))
            for x in (base, tensor)
        ]
        assert torch.equal(*drawn)
        assert (drawn[1] == outcomes).any(0).all()


def test_draws_are_reproducible_and_independent():
    tensor = torch.ones(1000, 4)
    first = mvue_2_4(tensor, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, mvue_2_4(tensor, generator=torch.Generator().manual_seed(5)))
    state = torch.get_rng_state()
    mvue_2_4(tensor, generator=torch.Generator().manual_seed(6))
    assert torch.equal(torch.get_rng_state(), state), "a generator leaves PyTorch's own alone"
    torch.manual_seed(7)
    seeded = mvue_2_4(tensor)
    assert not torch.equal(seeded, mvue_2_4(tensor))
    torch.manual_seed(7)
    assert torch.equal(seeded, mvue_2_4(tensor))
    assert len(first.unique(dim=0)) == 6, "equal groups are drawn independently"


def test_nothing_waits_for_the_device():
    """A tensor without data cannot be looked at."""
    tensor = torch.empty(3, 8, 5, device="meta", dtype=torch.bfloat16)
    estimate = mvue_2_4(tensor, dim=1)
    assert (estimate.device, estimate.dtype, estimate.shape) == (
        tensor.device,
        tensor.dtype,
        tensor.shape,
    )
    assert mvue_2_4_outcomes(tensor, dim=1)[1].shape == (6, 3, 8, 5)


def test_input_is_left_alone_and_nothing_is_differentiated():
    tensor = torch.randn(4, 8, requires_grad=True)
    before = tensor.detach().clone()
    assert not mvue_2_4(tensor).requires_grad
    assert torch.equal(tensor.detach(), before)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 8)])
def test_empty_tensors_stay_empty(shape):
    assert mvue_2_4(torch.empty(shape)).shape == shape


# ---- zeros, extremes, bad input


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_with_at_most_two_non_zeros_stay_as_they_are(estimator):
    tensor = torch.tensor([0.0, 0, 0, 0, 0, -3, 0, 0, 1e-20, 0, 1e20, 0, -2, -2, 0, 0])
    estimate = mvue_2_4(tensor.repeat(200, 1), estimator=estimator)
    torch.testing.assert_close(estimate, tensor.expand_as(estimate))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_and_huge_values_are_estimated_like_others(dtype, estimator):
    precision = torch.finfo(dtype)
    pattern = torch.tensor([1, 4, -2, 3], dtype=dtype)
    of_pattern = mvue_2_4_outcomes(pattern, estimator=estimator)
    for scale in (precision.tiny * 2**20, precision.tiny, precision.max / 16):
        probabilities, outcomes = mvue_2_4_outcomes(pattern * scale, estimator=estimator)
        torch.testing.assert_close(probabilities, of_pattern[0])
        torch.testing.assert_close(outcomes / scale, of_pattern[1])
    # Steps of denormals are whole: values are rounded to them, probabilities are not.
    step = precision.tiny * precision.eps
    probabilities, outcomes = mvue_2_4_outcomes(pattern * step, estimator=estimator)
    torch.testing.assert_close(probabilities, of_pattern[0])
    torch.testing.assert_close(outcomes / step, of_pattern[1], atol=0.5, rtol=0)


def test_a_value_beyond_the_dtype_becomes_infinite():
    """Four equal entries are estimated by two of twice their size: there is no other way."""
    assert mvue_2_4(torch.full((4,), 60000.0, dtype=torch.float16)).isinf().sum() == 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_visible_in_their_group_alone(bad, estimator):
    for position in range(4):
        tensor = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]])
        tensor[0, position] = bad
        estimate = mvue_2_4(tensor, estimator=estimator)
        assert estimate[0].isnan().sum() == 2
        assert (estimate[0] == 0).sum() == 2
        assert estimate[1].isfinite().all()


@pytest.mark.parametrize("function", [mvue_2_4, mvue_2_4_outcomes])
def test_bad_input_is_told_what_to_do(function):
    with pytest.raises(errors.RaggedShapeError, match=r"size 6, .*pad it with 2 zeros"):
        function(torch.ones(4, 6))
    with pytest.raises(errors.DtypeError, match=r"floating-point dtype, got torch.int64"):
        function(torch.ones(4, dtype=torch.int64))
    with pytest.raises(errors.DtypeError, match=r"got torch.complex64"):
        function(torch.ones(4, dtype=torch.complex64))
    with pytest.raises(errors.OptionError, match=r"dim must be from -2 to 1 .* got 2"):
        function(torch.ones(4, 4), dim=2)
    with pytest.raises(errors.ShapeError, match="at least one dimension"):
        function(torch.ones(()))
    with pytest.raises(errors.OptionError, match="one of exact, approximate, got 'best'"):
        function(torch.ones(4), estimator="best")
    with pytest.raises(errors.DtypeError, match=r"must be a torch\.Tensor, got ndarray"):
        function(np.ones(4))
    with pytest.raises(errors.DtypeError, match=r"got layout torch\.sparse_coo"):
        function(torch.ones(4).to_sparse())
    with pytest.raises(errors.OptionError, match=r"generator must be a torch\.Generator, got 3"):
        mvue_2_4(torch.ones(4), generator=3)


# ---- the linear layer


def dense_gradients(inputs, upstream):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in inputs]
    functional.linear(*leaves).backward(upstream)
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("tokens", [4, 3])
def test_the_expected_weight_gradient_is_the_dense_one(tokens, estimator, monkeypatch):
    """Every combination of outcomes of both columns, by the layer's own backward pass."""
    generator = torch.Generator().manual_seed(2)
    inputs = [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in [(tokens, 3), (2, 3), (2,)]
    ]
    upstream = torch.randn(tokens, 2, dtype=torch.float64, generator=generator)
    padded = functional.pad(upstream, (0, 0, 0, -tokens % 4))
    probabilities = mvue_2_4_outcomes(padded, dim=0, estimator=estimator)[0][:, 0]
    dense = dense_gradients(inputs, upstream)
    expected, variance = torch.zeros_like(dense[1]), 0
    for pairs in product(range(6), repeat=2):
        numbers = [middle_of(probabilities[:, c], pair) for c, pair in enumerate(pairs)]
        monkeypatch.setattr(torch.Tensor, "uniform_", uniform(*numbers))
        leaves = [leaf.clone().requires_grad_() for leaf in inputs]
        mvue_linear(*leaves, estimator).backward(upstream)
        torch.testing.assert_close(leaves[0].grad, dense[0], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(leaves[2].grad, dense[2], rtol=1e-14, atol=1e-14)
        probability = probabilities[pairs[0], 0] * probabilities[pairs[1], 1]
        expected += probability * leaves[1].grad
        variance += probability * (leaves[1].grad - dense[1]) ** 2
    torch.testing.assert_close(expected, dense[1], rtol=0, atol=1e-12)
    assert (variance > 1e-6).all(), "it is an estimate"


@pytest.mark.parametrize("shape", [(5,), (1, 5), (7, 5), (2, 3, 5), (2, 1, 9, 5), (0, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_any_number_of_tokens_and_leading_dimensions(shape, bias):
    layer = MVUELinear(5, 6, bias=bias, dtype=torch.float64)
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    output = layer(inputs)
    parameters = [p for p in (layer.weight, layer.bias) if p is not None]
    assert torch.equal(output, functional.linear(inputs, *parameters))
    upstream = torch.randn_like(output)
    torch.manual_seed(0)
    output.backward(upstream)
    dense = dense_gradients([inputs, *parameters], upstream)
    torch.testing.assert_close(inputs.grad, dense[0])
    if bias:
        torch.testing.assert_close(layer.bias.grad, dense[2])
    tokens = upstream.reshape(-1, 6)
    padded = functional.pad(tokens, (0, 0, 0, -len(tokens) % 4))
    torch.manual_seed(0)
    estimate = mvue_2_4(padded, dim=0)[: len(tokens)]
    torch.testing.assert_close(layer.weight.grad, estimate.T @ inputs.detach().reshape(-1, 5))


def test_two_tokens_of_a_group_need_no_estimate():
    inputs = [torch.randn(2, 5), torch.randn(3, 5)]
    upstream = torch.randn(2, 3)
    weight = inputs[1].clone().requires_grad_()
    mvue_linear(inputs[0], weight).backward(upstream)
    torch.testing.assert_close(weight.grad, dense_gradients(inputs, upstream)[1])


def test_gradients_accumulate_with_fresh_draws():
    layer = MVUELinear(4, 4, bias=False)
    inputs = torch.randn(16, 4)
    torch.manual_seed(1)
    singles = []
    for _ in range(2):
        layer.weight.grad = None
        layer(inputs).sum().backward()
        singles.append(layer.weight.grad)
    assert not torch.equal(*singles)
    torch.manual_seed(1)
    layer.weight.grad = None
    for _ in range(2):
        layer(inputs).sum().backward()
    torch.testing.assert_close(layer.weight.grad, singles[0] + singles[1])


def test_only_what_is_needed_is_computed_and_drawn():
    layer, inputs = MVUELinear(4, 4), torch.randn(8, 4, requires_grad=True)
    layer.weight.requires_grad_(False)
    state = torch.get_rng_state()
    output = layer(inputs)
    saved_input, saved_weight = output.grad_fn.saved_tensors
    assert saved_input is None
    assert saved_weight is layer.weight
    output.sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is not None
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_of_gradients_are_refused():
    layer = MVUELinear(4, 4)
    (gradient,) = torch.autograd.grad(
        layer(torch.randn(4, 4)).square().sum(), layer.weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return torch.where(self.mask, weight, 0)


def masked_layer():
    layer = MVUELinear(8, 4)
    mask = torch.rand(4, 8) < 0.5
    parametrize.register_parametrization(layer, "weight", Mask(mask))
    return layer, mask


def test_a_masked_weight_passes_the_gradient_on():
    layer, mask = masked_layer()
    inputs = torch.randn(12, 8, requires_grad=True)
    torch.manual_seed(0)
    layer(inputs).sum().backward()
    plain = (layer.weight.detach().clone().requires_grad_(), layer.bias.detach())
    torch.manual_seed(0)
    mvue_linear(inputs.detach(), *plain).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, mask * plain[0].grad)
    torch.testing.assert_close(inputs.grad, layer.weight.detach().sum(0).expand(12, 8))


def test_autocast_computes_in_its_dtype_and_returns_that_of_the_parameters():
    layer = MVUELinear(8, 4)
    inputs = torch.randn(12, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(inputs)
        assert torch.equal(output, functional.linear(inputs, layer.weight, layer.bias))
    assert output.dtype == torch.bfloat16
    torch.manual_seed(0)
    output.backward(torch.ones_like(output))
    assert {p.grad.dtype for p in (*layer.parameters(), inputs)} == {torch.float32}
    torch.manual_seed(0)
    estimate = mvue_2_4(torch.ones(12, 4, dtype=torch.bfloat16), dim=0)
    expected = (estimate.T @ inputs.detach().bfloat16()).float()
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_as_one_graph_forward_and_backward():
    """With a warning that PyTorch, tracing an autograd function, gives of itself."""
    layer, _ = masked_layer()
    parameters = [*layer.parameters()]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for tokens in (12, 7, 9):  # from the second on, the size is traced as a symbol
        inputs = torch.randn(tokens, 8)
        gradients = []
        for module in (layer, compiled):
            torch.manual_seed(tokens)
            loss = module(inputs).square().sum()
            gradients.append(torch.autograd.grad(loss, parameters))
        torch.testing.assert_close(*gradients)
    torch.compiler.reset()


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_replaced_by_one_with_the_same_parameters(bias):
    linear = nn.Linear(5, 3, bias=bias, dtype=torch.float64).eval()
    layer = MVUELinear.from_linear(linear, estimator="approximate")
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert not layer.training
    assert layer.estimator == "approximate"
    assert list(layer.state_dict()) == list(linear.state_dict())
    assert repr(layer) == (
        f"MVUELinear(in_features=5, out_features=3, bias={bias}, estimator=approximate)"
    )


def test_layers_that_cannot_be_replaced_say_why():
    with pytest.raises(errors.OptionError, match="parametrized already"):
        MVUELinear.from_linear(masked_layer()[0])
    with pytest.raises(errors.OptionError, match=r"a torch.nn.Linear itself, but is a Bilinear"):
        MVUELinear.from_linear(nn.Bilinear(2, 2, 2))
    with pytest.raises(errors.OptionError, match="NonDynamicallyQuantizableLinear"):
        MVUELinear.from_linear(nn.MultiheadAttention(4, 2).out_proj)
    for make in (
        lambda: MVUELinear(4, 4, estimator="none"),
        lambda: mvue_linear(torch.ones(4, 4), torch.ones(4, 4), estimator="none"),
    ):
        with pytest.raises(errors.OptionError, match="one of exact, approximate, got 'none'"):
            make()


class Small(nn.Linear):
    """A layer that may have a forward of its own."""

    def __init__(self):
        super().__init__(8, 4)


@pytest.mark.parametrize("option", ["mvue", "mvue_approximate"])
def test_sparsify_makes_plain_linear_layers_draw_their_weight_gradient(option):
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8), Small())
    first = model[0]
    seen = []
    first.register_forward_hook(lambda *_: seen.append(1))
    names = {name for name, _ in model.named_parameters()}
    report = sparsify(model, 2, 4, weight_gradient=option)
    assert [entry.weight_gradient for entry in report.masked] == [option, option, "dense"]
    assert f"weight gradient {option}" in str(report)
    assert model[0] is first
    x, upstream = torch.randn(7, 8, dtype=torch.float32), torch.randn(7, 12)
    torch.manual_seed(1)
    output = first(x)
    output.backward(upstream)
    assert seen == [1]
    weight = first.weight.detach().clone().requires_grad_()
    torch.manual_seed(1)
    estimator = "exact" if option == "mvue" else "approximate"
    again = mvue_linear(x, weight, first.bias.detach(), estimator)
    again.backward(upstream)
    assert torch.equal(again, output)
    # Straight-through: what the estimate gives the masked weight reaches the dense one whole.
    assert torch.equal(first.parametrizations.weight.original.grad, weight.grad)
    assert not torch.allclose(weight.grad, upstream.T @ x, rtol=0.01)
    check_sparsity(model)
    for each in (copy.deepcopy(model), model):
        desparsify(each)
        assert [type(layer) for layer in each] == [nn.Linear, nn.ReLU, nn.Linear, Small]
        assert {name for name, _ in each.named_parameters()} == names
        assert not hasattr(each[0], "estimator")


def test_a_layer_that_was_of_the_kind_stays_so_with_its_own_estimator():
    model = nn.Sequential(MVUELinear(8, 8, estimator="approximate"), nn.Linear(8, 8))
    report = sparsify(model, 2, 4, weight_gradient="mvue")
    assert [entry.weight_gradient for entry in report.masked] == ["mvue_approximate", "mvue"]
    desparsify(model)
    assert [type(layer) for layer in model] == [MVUELinear, nn.Linear]
    assert [e.weight_gradient for e in sparsify(model, 2, 4).masked] == [
        "mvue_approximate",
        "dense",
    ]


def test_a_layer_that_is_switched_to_dense_has_the_dense_gradient():
    layer = nn.Linear(8, 12)
    sparsify(layer, 2, 4, weight_gradient="mvue")
    layer.parametrizations.weight[0].dense = True
    x, upstream = torch.randn(7, 8), torch.randn(7, 12)
    layer(x).backward(upstream)
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, upstream.T @ x)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_model_sparsified_so_compiles_as_one_graph():
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    sparsify(model, 2, 4, weight_gradient="mvue")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, weights = torch.randn(6, 8), list(model.parameters())
    gradients = []
    for call in (model, compiled):
        torch.manual_seed(3)
        gradients.append(torch.autograd.grad(call(x).square().sum(), weights))
    torch.testing.assert_close(*gradients)
    torch.compiler.reset()


def test_weight_gradients_that_cannot_be_are_told():
    with pytest.raises(errors.OptionError, match="one of 'dense', 'mvue', 'mvue_approximate', got"):
        sparsify(nn.Linear(8, 8), 2, 4, weight_gradient="sparse")
    model = nn.Sequential(nn.Conv1d(8, 8, 1), Small())
    with pytest.raises(errors.OptionError, match=r"layers that are torch.nn.Linear itself"):
        sparsify(model, 2, 4, weight_gradient="mvue")
    assert not any(parametrize.is_parametrized(layer) for layer in model)
