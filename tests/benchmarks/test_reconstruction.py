"""The measurement of reconstruction, on a tiny encoder."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from benchmarks.reconstruction import Encoder, measure, random_tokens, text_tokens, to_markdown


def test_measure_and_report():
    torch.manual_seed(0)
    dense = Encoder(50, 64, 16, 32, heads=4, blocks=2).eval()
    weights = [parameter.detach().clone() for parameter in dense.parameters()]
    tokens = random_tokens(40, 64, 50)
    outcomes = [
        measure(dense, tokens, "random", "2:4", order) for order in ("parallel", "sequential")
    ]
    for outcome in outcomes:
        assert len(outcome.ratios) == 12
        assert max(outcome.ratios) < 1
        assert 0 < outcome.model_after < outcome.model_before
    assert all(map(torch.equal, weights, dense.parameters())), "the dense encoder stays"
    page = to_markdown(outcomes, 32, "a processor", "2")
    assert all(outcome.line in page for outcome in outcomes)
    assert "blocks.1.narrow" in page


def test_tokens_are_the_same_every_time(tmp_path):
    file = tmp_path / "tokenizer.json"
    vocabulary = ["?", "the", "a", "of", "to", "is", "in", ".", ","]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    words.save(str(file))
    for draw in (lambda: random_tokens(20, 8, 50), lambda: text_tokens(20, 8, file)):
        first = draw()
        assert torch.equal(first, draw())
        assert first.shape == (20, 8)
        assert 0 <= int(first.min()) < int(first.max()) < 50
        assert len(first.unique(dim=0)) > 10
    with pytest.raises(ValueError, match="not 10000000; take fewer"):
        text_tokens(10**7, 8, file)
