"""A small causal transformer over bytes, and batches of a text: what training is tried on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ByteTransformer", "batch_of"]


class ByteTransformer(nn.Module):
    """Predicts the next byte: pre-norm blocks of causal attention and a feed-forward network.

    Parameters
    ----------
    width : int
        Of the residual stream, a multiple of `heads`.
    depth : int
        Blocks.
    heads : int
    context : int
        Bytes it sees at most.
    """

    def __init__(
        self, width: int = 128, depth: int = 4, heads: int = 4, context: int = 128
    ) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256)

    def forward(self, text: Tensor) -> Tensor:
        """Return logits (B, T, 256) of the byte after each of `text` (B, T)."""
        x = self.bytes(text) + self.places.weight[: text.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits

    def loss(self, text: Tensor) -> Tensor:
        """Return the mean cross entropy, in nats, of all bytes of `text` (B, T + 1) but the first."""
        return nn.functional.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        grown: Tensor = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        return grown


def batch_of(
    text: bytes, size: int, length: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return `size` random pieces of `length` bytes of a text, (size, length) int64."""
    all_bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    starts = torch.randint(len(all_bytes) - length + 1, (size,), generator=generator)
    return torch.stack([all_bytes[start : start + length] for start in starts.tolist()]).long()
