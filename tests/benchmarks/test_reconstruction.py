"""The measurement of reconstruction, on a tiny encoder."""

import torch

from benchmarks.reconstruction import Encoder, measure, random_tokens, to_markdown


def test_measure_and_report():
    torch.manual_seed(0)
    dense = Encoder(50, 64, 16, 32, heads=4, blocks=2).eval()
    weights = [parameter.detach().clone() for parameter in dense.parameters()]
    outcomes = [measure(dense, "2:4", order, sequences=32) for order in ("parallel", "sequential")]
    for outcome in outcomes:
        assert len(outcome.ratios) == 12
        assert max(outcome.ratios) < 1
        assert 0 < outcome.model_after < outcome.model_before
    assert all(map(torch.equal, weights, dense.parameters())), "the dense encoder stays"
    page = to_markdown(outcomes, 32, "a processor", "2")
    assert all(outcome.line in page for outcome in outcomes)
    assert "blocks.1.narrow" in page


def test_tokens_are_random_but_the_same_every_time():
    first, again, other = (torch.cat(list(random_tokens(20, 8, 50, seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (20, 8)
    assert 0 <= int(first.min()) < int(first.max()) < 50
