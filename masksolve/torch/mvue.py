"""2:4 sparse weight gradients: minimum-variance unbiased estimators (MVUE) of a tensor.

The product of a weight gradient, dZᵀ·X, reduces over the tokens. It can run on sparse tensor
cores if dZᵀ has at most two non-zeros in every four consecutive tokens; drawn at random so that
the expectation is dZᵀ itself, the gradient stays right on average.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import combinations
from operator import add, or_
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from ..errors import DtypeError, OptionError, RaggedShapeError, ShapeError
from .layers import find_masked

__all__ = [
    "Estimator",
    "MVUELinear",
    "WeightGradient",
    "as_mvue_linear",
    "check_weight_gradient",
    "estimate_tokens",
    "mvue_2_4",
    "mvue_2_4_outcomes",
    "mvue_linear",
    "plain_class",
    "weight_gradient_of",
]

#: The estimator of least variance, or draws in proportion to the magnitudes.
Estimator = Literal["exact", "approximate"]
#: The product of output gradients and inputs: of dense ones, or of 2:4 sparse estimates by MVUE.
WeightGradient = Literal["dense", "mvue", "mvue_approximate"]
_ESTIMATORS: dict[WeightGradient, Estimator] = {"mvue": "exact", "mvue_approximate": "approximate"}

_PAIRS = tuple(combinations(range(4), 2))


def mvue_2_4(
    tensor: Tensor,
    *,
    dim: int = -1,
    estimator: Estimator = "exact",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw an unbiased estimate of a tensor with at most two non-zeros in every group of four.

    In every group x of four consecutive entries along `dim`, independently, a pair of entries
    is kept, each divided by the probability :math:`\pi_i` that it is kept:

    .. math:: y_i = \begin{cases} x_i / \pi_i & i \text{ is kept} \\ 0 & \text{else} \end{cases}
        \qquad E[y_i] = x_i \qquad \sum_i \pi_i = 2

    With :math:`a_i = |x_i|` and :math:`r_i = \sum_{j \ne i} a_j`, the estimators are

    exact
        :math:`\pi_i = 2 c_i / \sum_j c_j` with :math:`c_i = \min(a_i, r_i)`: an entry larger
        than the other three together is always kept, and the others share the second place in
        proportion to their size. No unbiased estimator with at most two non-zeros has a
        smaller variance.
    approximate
        Two entries drawn one after the other in proportion to :math:`a_i`, without
        replacement: :math:`\pi_i = \sum_{j \ne i} \frac{a_i a_j}{S} \left(\frac1{r_i} +
        \frac1{r_j}\right)` with :math:`S = \sum_j a_j`.

    Parameters
    ----------
    tensor : (..., C, ...) Tensor, floating point
        Any layout, on any device. C, its size along `dim`, is a multiple of 4.
    dim : int
        Dimension along which four consecutive entries are a group.
    estimator : {"exact", "approximate"}
        How the kept pairs are drawn, see above.
    generator : torch.Generator, optional
        Source of the random numbers, on the device of `tensor`; by default PyTorch's own, which
        is the one that `torch.compile` takes.

    Returns
    -------
    Tensor of the shape, dtype and device of `tensor`
        It takes no part in automatic differentiation. A group that holds NaN or infinity has
        NaN in both entries that are kept, so a check for finite gradients sees it. A value
        beyond the range of the dtype becomes infinite: four equal entries are estimated by two
        of twice their size.

    Raises
    ------
    DtypeError, ShapeError, RaggedShapeError, OptionError
        Each names what was given and what was expected.

    Notes
    -----
    *Why no estimator is better.* Let y be unbiased and :math:`\pi_i = P(y_i \ne 0)`. By
    Cauchy-Schwarz, :math:`x_i^2 = E[y_i 1_{y_i \ne 0}]^2 \le \pi_i E[y_i^2]`, so :math:`E\|y\|^2
    \ge \sum_i x_i^2 / \pi_i`, where :math:`\sum_i \pi_i \le 2` and :math:`\pi_i \le 1`. The
    smallest such sum has :math:`\pi_i = \min(1, a_i / \tau)` with a threshold :math:`\tau` at
    which they sum to 2 (water-filling): these are the probabilities above, with which
    :math:`E\|y\|^2` is that sum.

    *Pairs.* The variance depends on the :math:`\pi_i` alone. Pairs with just these are drawn
    with probabilities in proportion to :math:`c_i c_j (1/d_i + 1/d_j)`, where :math:`d_i =
    \sum_{j \ne i} c_j - c_i` (Brewer's design), which needs neither sorting nor the
    distinction of cases by which the sources list the probabilities of pairs. Pairs of the
    approximate estimator have the same form with :math:`a_i` and :math:`r_i`.

    *Precision.* Probabilities are computed in float32, in float64 for float64. They are resolved
    to 2⁻²⁴ (2⁻⁵³) by the random numbers, and values are rounded to the dtype of `tensor`; but
    for that the estimate is unbiased.

    References
    ----------
    Chmiel et al., *Minimum Variance Unbiased N:M Sparsity for the Neural Gradients*, ICLR 2023.
    Hu et al., *Accelerating Transformer Pre-training with 2:4 Sparsity*, ICML 2024,
    arXiv 2404.01847. Brewer, *A model of systematic sampling with unequal probabilities*,
    Australian Journal of Statistics 5, 1963.

    Examples
    --------
    >>> gradient = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.0, 0.0, -9.0, 1.0])
    >>> estimate = mvue_2_4(gradient, generator=torch.Generator().manual_seed(0))
    >>> (estimate.reshape(2, 4) != 0).sum(1)
    tensor([2, 2])
    >>> estimate[4:]
    tensor([ 0.,  0., -9.,  1.])
    """
    groups = _split(tensor, dim)
    _check_estimator(estimator)
    if not isinstance(generator, torch.Generator | None):
        raise OptionError(
            f"generator must be a torch.Generator, got {generator!r};"
            " torch.Generator().manual_seed(seed) makes one"
        )
    with torch.no_grad():
        probabilities, values = _pair_table(groups, estimator)
        kept = _keep(values, _draw(probabilities, generator))
        return _join(kept, dim).to(tensor.dtype)


def mvue_2_4_outcomes(
    tensor: Tensor, *, dim: int = -1, estimator: Estimator = "exact"
) -> tuple[Tensor, Tensor]:
    r"""List all that `mvue_2_4` may draw, with the probabilities from which it draws.

    The k-th outcome of a group keeps the k-th pair of (0, 1), (0, 2), (0, 3), (1, 2), (1, 3),
    (2, 3). Expectation and variance of every entry are exact sums over the outcomes:

    .. math:: E[y] = \sum_k p_k y_k = x \qquad \operatorname{Var}[y] = \sum_k p_k y_k^2 - x^2

    Parameters
    ----------
    tensor, dim, estimator
        As in `mvue_2_4`.

    Returns
    -------
    probabilities, outcomes : Tensors of shape (6,) + tensor.shape, float32, or float64 for float64
        ``outcomes[k]`` is the estimate if every group keeps its k-th pair;
        ``probabilities[k]`` has, at every entry, the probability that its group does.

    Raises
    ------
    DtypeError, ShapeError, RaggedShapeError, OptionError
        Each names what was given and what was expected.

    Examples
    --------
    >>> gradient = torch.tensor([1.0, 2.0, -3.0, 4.0])
    >>> probabilities, outcomes = mvue_2_4_outcomes(gradient)
    >>> outcomes[5].round(decimals=5)
    tensor([ 0.,  0., -5.,  5.])
    >>> (probabilities * outcomes).sum(0).round(decimals=5)
    tensor([ 1.,  2., -3.,  4.])
    """
    groups = _split(tensor, dim)
    _check_estimator(estimator)
    with torch.no_grad():
        probabilities, values = _pair_table(groups, estimator)
        every_pair = torch.eye(len(_PAIRS), dtype=torch.bool, device=tensor.device)
        of_each = every_pair.view(len(_PAIRS), len(_PAIRS), *[1] * tensor.ndim)
        return (
            torch.stack([_join(p.expand_as(groups), dim) for p in probabilities]),
            torch.stack([_join(_keep(values, drawn), dim) for drawn in of_each]),
        )


def mvue_linear(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    estimator: Estimator = "exact",
) -> Tensor:
    r"""Apply a linear map whose weight gradient is computed from 2:4 sparse output gradients.

    .. math:: Z = X W^T + b \qquad \nabla X = \nabla Z \, W \qquad
        \nabla W = \operatorname{MVUE}(\nabla Z^T) \, X \qquad \nabla b = \sum_t \nabla Z_t

    Only the weight gradient is an estimate; its expectation is the dense one. The groups of four
    are consecutive tokens: all leading dimensions of `input` in order, the last group filled up
    with zeros. Every backward pass draws anew, from the random numbers of PyTorch. This is the
    arithmetic of the sparse product; it is carried out as a dense one.

    Parameters
    ----------
    input : (..., in_features) Tensor
        Called X.
    weight : (out_features, in_features) Tensor
        Called W; it may be the result of a parametrization, such as a masked weight.
    bias : (out_features,) Tensor, optional
        Called b.
    estimator : {"exact", "approximate"}
        As in `mvue_2_4`.

    Returns
    -------
    (..., out_features) Tensor
        The same as of `torch.nn.functional.linear`, under autocast too: there the backward
        products are those of the dtype of the output, and gradients are returned in the dtype of
        what they are the gradients of. Gradients of gradients are refused.

    Raises
    ------
    OptionError
        There is no such estimator.

    References
    ----------
    Hu et al., *Accelerating Transformer Pre-training with 2:4 Sparsity*, ICML 2024,
    arXiv 2404.01847.

    Examples
    --------
    >>> X, W = torch.randn(6, 3), torch.randn(5, 3, requires_grad=True)
    >>> mvue_linear(X, W).sum().backward()
    >>> W.grad.shape
    torch.Size([5, 3])
    """
    _check_estimator(estimator)
    output: Tensor = _MVUELinear.apply(input, weight, bias, estimator)  # type: ignore[no-untyped-call]
    return output


class MVUELinear(nn.Linear):
    """A `torch.nn.Linear` whose weight gradient comes from 2:4 sparse output gradients.

    Formula and behaviour are those of `mvue_linear`. Parameters and state dict are those of
    `torch.nn.Linear`, so the weight may be parametrized like any other. While a mask on it is
    switched to dense, its weight gradient is dense as well.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    estimator : {"exact", "approximate"}
        As in `mvue_2_4`.

    Raises
    ------
    OptionError
        There is no such estimator.

    Examples
    --------
    >>> MVUELinear(8, 4)
    MVUELinear(in_features=8, out_features=4, bias=True, estimator=exact)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        estimator: Estimator = "exact",
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        _check_estimator(estimator)
        self.estimator = estimator

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, estimator: Estimator = "exact") -> MVUELinear:
        """Make one with the very parameters of a linear layer, to put into its place.

        An optimizer that holds them goes on to hold them. Hooks of the layer are not taken over.

        Parameters
        ----------
        linear : torch.nn.Linear
            Not of a subclass, which may have a forward of its own, and not parametrized yet.
        estimator : {"exact", "approximate"}
            As in `mvue_2_4`.

        Returns
        -------
        MVUELinear

        Raises
        ------
        OptionError
            There is no such estimator, or `linear` is of another class or parametrized.

        Examples
        --------
        >>> linear = nn.Linear(8, 4)
        >>> MVUELinear.from_linear(linear).weight is linear.weight
        True
        """
        if is_parametrized(linear):
            raise OptionError(
                "linear is parametrized already; call from_linear on the plain layer first, then"
                " parametrize (sparsify) what it returns"
            )
        if type(linear) is not nn.Linear:
            raise OptionError(
                f"linear must be a torch.nn.Linear itself, but is a {type(linear).__name__};"
                " use mvue_linear in its forward instead"
            )
        made = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            device="meta",
            estimator=estimator,
        )
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return what `mvue_linear` returns for the weight and bias of this layer."""
        masked = find_masked(self)
        if masked is not None and masked.dense:
            return functional.linear(input, self.weight, self.bias)
        return mvue_linear(input, self.weight, self.bias, self.estimator)

    def extra_repr(self) -> str:
        """Return what `repr` shows of this layer."""
        return f"{super().extra_repr()}, estimator={self.estimator}"


def as_mvue_linear(module: nn.Module, weight_gradient: WeightGradient) -> None:
    """Make a plain `torch.nn.Linear` an `MVUELinear`, in place, if the weight gradient asks for it.

    Parameters, hooks and all that refers to the layer stay; other layers are left alone.
    """
    if type(module) is nn.Linear and weight_gradient != "dense":
        module.__class__ = MVUELinear
        module.estimator = _ESTIMATORS[weight_gradient]  # type: ignore[assignment]
        module.was_linear = True  # type: ignore[assignment]


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a parametrized module without that, where `as_mvue_linear` is undone."""
    if vars(module).pop("was_linear", False):
        del module.estimator
        return nn.Linear
    return type(module).__bases__[0]


def weight_gradient_of(module: nn.Module, chosen: WeightGradient = "dense") -> WeightGradient:
    """Return what the weight gradient of a layer is, or becomes if `as_mvue_linear` is given it."""
    if isinstance(module, MVUELinear):
        return next(
            name for name, estimator in _ESTIMATORS.items() if estimator == module.estimator
        )
    return chosen if type(module) is nn.Linear else "dense"


def check_weight_gradient(weight_gradient: str) -> WeightGradient:
    """Return it, checked."""
    if weight_gradient not in get_args(WeightGradient):
        raise OptionError(
            f"weight_gradient must be one of {', '.join(map(repr, get_args(WeightGradient)))}, "
            f"got {weight_gradient!r}"
        )
    return weight_gradient  # type: ignore[return-value]  # is one of them


class _MVUELinear(torch.autograd.Function):
    @staticmethod
    def forward(
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None,
        estimator: Estimator,  # noqa: ARG004
    ) -> Tensor:
        return functional.linear(input, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        input, weight, _, ctx.estimator = inputs  # noqa: A001
        of_input, of_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(input if of_weight else None, weight if of_input else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors  # noqa: A001
        tokens = gradient.reshape(-1, gradient.shape[-1])
        of_input = of_weight = of_bias = None
        # Under autocast what was saved may be wider than the gradient.
        if ctx.needs_input_grad[0]:
            of_input = gradient @ weight.to(gradient.dtype)
        if ctx.needs_input_grad[1]:
            estimate = estimate_tokens(tokens, ctx.estimator)
            of_weight = estimate.T @ input.reshape(-1, input.shape[-1]).to(gradient.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = tokens.sum(0)
        return of_input, of_weight, of_bias, None


def estimate_tokens(tokens: Tensor, estimator: Estimator) -> Tensor:
    """Estimate gradients, (tokens, features), in groups of four tokens; the last is filled up."""
    padded = functional.pad(tokens, (0, 0, 0, -len(tokens) % 4))
    return mvue_2_4(padded, dim=0, estimator=estimator)[: len(tokens)]


def _check_estimator(estimator: str) -> None:
    if estimator not in get_args(Estimator):
        raise OptionError(
            f"estimator must be one of {', '.join(get_args(Estimator))}, got {estimator!r}"
        )


def _split(tensor: Tensor, dim: int) -> Tensor:
    """View the groups along `dim` as (4, groups, ...)."""
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"the tensor must be a torch.Tensor, got {type(tensor).__name__}")
    # A layout cannot be traced within a backward pass, where gradients are dense.
    if not torch.compiler.is_compiling() and tensor.layout != torch.strided:
        raise DtypeError(
            f"the tensor must be dense, got layout {tensor.layout}; to_dense() makes one"
        )
    if not tensor.is_floating_point():
        raise DtypeError(
            f"the tensor must be of a floating-point dtype, got {tensor.dtype};"
            " convert it, for instance with .float()"
        )
    if tensor.ndim == 0:
        raise ShapeError("the tensor must have at least one dimension to group along, got none")
    if not -tensor.ndim <= dim < tensor.ndim:
        raise OptionError(
            f"dim must be from {-tensor.ndim} to {tensor.ndim - 1} for a tensor of shape"
            f" {tuple(tensor.shape)}, got {dim}"
        )
    size = tensor.shape[dim]
    if size % 4:
        raise RaggedShapeError(
            f"dimension {dim} of a tensor of shape {tuple(tensor.shape)} has size {size}, which is"
            f" no multiple of 4; pad it with {-size % 4} zeros and cut them off the result"
        )
    rows = tensor.movedim(dim, 0)
    return rows.view(size // 4, 4, *rows.shape[1:]).movedim(1, 0)


def _join(groups: Tensor, dim: int) -> Tensor:
    """Undo `_split`."""
    return groups.movedim(0, 1).flatten(0, 1).movedim(0, dim)


def _pair_table(groups: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """Probabilities of the pairs (6, ...), and what each entry is worth when kept (4, ...)."""
    groups = groups.to(groups.dtype if groups.dtype.itemsize > 4 else torch.float32).contiguous()
    precision = torch.finfo(groups.dtype)
    # The least size an entry counts with, so that every pair has some: it shifts probabilities
    # by less than they are rounded, and an all-zero group needs no case of its own.
    least = precision.eps**2
    size = groups.abs()
    size = (size / size.amax(0).clamp_min(precision.tiny)).clamp_min(least)
    # The other three, summed without the cancellation of a difference.
    slack = size.roll(1, 0) + size.roll(2, 0) + size.roll(3, 0)
    if estimator == "exact":
        slack = slack - size
    # An entry without slack, as large as the others together or larger, is kept for certain:
    # pairs with it outweigh the rest, and do so in proportion to its partner.
    odds = size / torch.maximum(slack, least * size)
    weights = torch.stack([size[i] * odds[j] + odds[i] * size[j] for i, j in _PAIRS])
    probabilities = weights / weights.sum(0)
    inclusion = _of_members(add, probabilities)
    # The very probabilities that are drawn from, rounded as they are: no bias enters here.
    return probabilities, groups / inclusion


def _of_members(combine: Any, of_pairs: Iterable[Tensor]) -> Tensor:
    """Combine, for each entry of a group, what the three pairs that it belongs to have."""
    return torch.stack(
        [
            reduce(combine, [x for x, pair in zip(of_pairs, _PAIRS, strict=True) if entry in pair])
            for entry in range(4)
        ]
    )


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """Mark the pair of each group that is drawn, by inversion of the cumulative probabilities."""
    cumulative = probabilities.cumsum(0)
    uniform = torch.empty_like(cumulative[-1]).uniform_(generator=generator)
    # In (0, 1], so that a pair of next to no probability is never drawn; 1 draws the last one.
    below = cumulative < (1 - uniform) * cumulative[-1]
    # Where `below` turns from True to False; with NaN at the first pair, so one is always drawn.
    return torch.diff(below, dim=0, prepend=torch.ones_like(below[:1]))


def _keep(values: Tensor, drawn: Tensor) -> Tensor:
    """Set to zero all entries of a group but those of the drawn pair."""
    return torch.where(_of_members(or_, drawn), values, 0)
