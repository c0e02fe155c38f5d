"""Where the blocks of a layer's weight lie: over outputs × inputs, for every tap of a kernel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["LAYERS", "Layout", "layout_of"]

_TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
_CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED
#: Layers whose weight can be masked.
LAYERS = (nn.Linear, *_CONVOLUTIONS)


@dataclass(frozen=True)
class Layout:
    """How a weight becomes matrices ``(groups, rows, columns, *taps)``, blocks over axes (1, 2).

    A linear layer has one matrix (outputs, inputs). A convolution has one for every group and tap:
    the products of forward and backward pass sum over its inputs and over its outputs. A
    transposed convolution's are (inputs, outputs), which is the same to a transposable mask.

    Parameters
    ----------
    groups : int
        Groups of a convolution; each is a matrix of its own.
    """

    groups: int = 1
    axes = (1, 2)

    def as_matrices(self, weight: Tensor) -> Tensor:
        """Return a view of a weight, ``(groups, rows, columns, *taps)``."""
        rows, *rest = weight.shape
        return weight.reshape(self.groups, rows // self.groups, *rest)


def layout_of(module: nn.Module) -> Layout:
    """Return the layout of a layer's weight."""
    return Layout(module.groups if isinstance(module, _CONVOLUTIONS) else 1)
