"""LSTM: normalisation, order, sampling, and the state that is carried over."""

import math

import pytest
import torch

from leadline.core import Batch, Categories, DomainError, OptionError, ShapeError, Signature, Tokens
from leadline.models.autoregressive.lstm import LSTM
from tests.tiny import tiny

SMALL = Tokens(tuple("abc"), 4)
SHAPES = [{"hidden": 7}, {"hidden": 6, "layers": 2, "tied": True, "dropout": 0.5}]


@pytest.fixture(params=SHAPES, ids=str)
def model(request, moved) -> LSTM:
    found = moved(LSTM.for_data(Signature(SMALL), **request.param)).double().eval().requires_grad_(False)
    # Start and head far from zero, so that tokens differ clearly.
    found.bias.mul_(6)
    found.start.mul_(3)
    return found


def test_probabilities_of_all_windows_sum_to_one(model):
    assert float(model.log_prob(SMALL.states()).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_no_token_reads_itself_or_a_later_one_and_each_reads_all_before(model):
    x = torch.tensor([[0, 1, 2, 0]])
    before = model.conditionals(x)[0]
    for place in range(4):
        changed = x.clone()
        changed[0, place] = (x[0, place] + 1) % 3
        after = model.conditionals(changed)[0]
        assert torch.equal(after[:place], before[:place])
        assert (after[place + 1 :] != before[place + 1 :]).all()


def test_the_loss_is_the_mean_over_tokens_of_what_log_prob_sums(model):
    x = SMALL.states()
    assert model.loss(Batch(x)).item() == pytest.approx(-float(model.log_prob(x).mean()) / 4)


def test_samples_are_as_frequent_as_log_prob_says(model, generator):
    n = 20_000
    p = model.log_prob(SMALL.states()).exp()
    code = model.sample(n, generator) @ torch.tensor([27, 9, 3, 1])
    seen = torch.bincount(code, minlength=81) / n
    assert ((seen - p).abs() <= 4 * (p * (1 - p) / n).sqrt() + 1 / n).all()


def test_temperature_flattens_or_sharpens_the_first_token(model, generator):
    n = 20_000
    first = torch.stack([model.conditionals(torch.full((1, 4), token))[0, 0] for token in range(3)])
    for temperature in (0.5, 1.0, 3.0):
        expected = (first / temperature).softmax(0)
        drawn = model.sample(n, generator, temperature=temperature, length=1).flatten()
        seen = torch.bincount(drawn, minlength=3) / n
        assert ((seen - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt() + 1 / n).all()


def test_temperature_zero_a_tiny_temperature_and_one_choice_are_all_greedy(model, generator):
    greedy = [int(model.sample(1, temperature=0.0)[0, t]) for t in range(4)]
    text: list[int] = []
    for t in range(4):  # the token of largest probability, one after the other
        tries = torch.tensor([[*text, token, *[0] * (3 - t)] for token in range(3)])
        text.append(int(model.conditionals(tries)[:, t].argmax()))
    assert greedy == text
    expected = torch.tensor(text).expand(5, 4)
    assert torch.equal(model.sample(5, generator, top_k=1), expected)
    assert torch.equal(model.sample(5, generator, temperature=1e-6), expected)


def test_top_k_takes_only_the_most_probable_tokens_in_their_proportion(model, generator):
    first = torch.stack([model.conditionals(torch.full((1, 4), token))[0, 0] for token in range(3)])
    best = first.topk(2)
    drawn = model.sample(20_000, generator, top_k=2, length=1).flatten()
    assert set(drawn.tolist()) == set(best.indices.tolist())
    p = float(best.values.softmax(0)[0])
    seen = float((drawn == best.indices[0]).double().mean())
    assert abs(seen - p) < 4 * math.sqrt(p * (1 - p) / 20_000)
    assert torch.equal(
        model.sample(9, torch.Generator().manual_seed(0), top_k=99),
        model.sample(9, torch.Generator().manual_seed(0)),
    )


def test_a_prompt_is_kept_and_conditions_what_follows(model, generator):
    prompt, n = torch.tensor([2, 0, 1]), 20_000
    drawn = model.sample(n, generator, prompt=prompt)
    assert torch.equal(drawn[:, :3], prompt.expand(n, 3))
    tries = torch.stack([torch.cat([prompt, torch.tensor([token])]) for token in range(3)])
    p = model.conditionals(tries)[:, 3].exp()
    seen = torch.bincount(drawn[:, 3], minlength=3) / n
    assert ((seen - p).abs() <= 4 * (p * (1 - p) / n).sqrt() + 1 / n).all()
    each = model.sample(2, generator, prompt=torch.tensor([[0], [1]]), length=9)
    assert each.shape == (2, 9)
    assert each[:, 0].tolist() == [0, 1]
    assert torch.equal(model.sample(2, prompt=prompt, length=3), prompt.expand(2, 3))


def test_sampling_repeats_under_one_generator(model):
    draws = [model.sample(6, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], model.sample(6, torch.Generator().manual_seed(6)))


def test_a_stream_in_pieces_scores_as_the_unsplit_stream(model):
    text = torch.randint(0, 3, (24,))
    whole = model.bits_per_token(text.view(1, 24)).value
    for length in (4, 8, 1):
        assert model.bits_per_token(text.view(-1, length)).value == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(model.bits_per_token(text.view(1, 24), stateful=False).value)


def test_parallel_streams_are_the_mean_of_each_alone(model):
    x = torch.randint(0, 3, (12, 4))
    alone = [model.bits_per_token(part).value for part in x.chunk(3)]
    assert model.bits_per_token(x, streams=3).value == pytest.approx(sum(alone) / 3)


def test_stateless_bits_are_those_of_log_prob_and_differ_from_stateful_ones(model):
    x = torch.randint(0, 3, (10, 4))
    found = model.bits_per_token(x, stateful=False)
    assert found.value == pytest.approx(-float(model.log_prob(x).mean()) / 4 / math.log(2))
    assert (found.unit, found.samples) == ("bits/token", 10)
    assert model.bits_per_token(x).value != found.value


def test_bits_per_token_ignores_dropout_and_leaves_the_mode_as_it_was(model):
    x = torch.randint(0, 3, (10, 4))
    expected = model.bits_per_token(x).value
    model.train()
    assert model.bits_per_token(x).value == expected
    assert model.training


def test_the_code_is_the_mean_hidden_state_behind_each_token(model):
    x = torch.tensor([[0, 2, 1, 1]])
    inputs = torch.cat([model.start[None], model.embedding.weight[x[0]]])[None]
    states, hidden = [], None
    for t in range(5):
        output, hidden = model.lstm(inputs[:, t : t + 1], hidden)
        states.append(output[0, 0])
    assert torch.allclose(model.encode(x)[0], torch.stack(states[1:]).mean(0))


def test_tied_weights_are_the_embeddings_under_one_name():
    tied = LSTM.for_data(Signature(SMALL), hidden=8, tied=True)
    free = LSTM.for_data(Signature(SMALL), hidden=8)
    assert set(free.state_dict()) - set(tied.state_dict()) == {"head.weight"}
    h = torch.randn(2, 8)
    assert torch.allclose(tied.logits(h), h @ tied.embedding.weight.T)
    assert free.head is not None
    assert torch.allclose(free.logits(h), h @ free.head.weight.T)


def test_training_improves_the_likelihood():
    data = tiny("tokens")
    model = LSTM.for_data(data, hidden=16, layers=2, dropout=0.1)
    before = model.eval().log_prob(data.train.x).mean().item()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        model.loss(Batch(data.train.x)).backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    assert model.eval().log_prob(data.train.x).mean().item() > before + 0.3


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"tied": True, "embedding": 3, "hidden": 5}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError):
        LSTM.for_data(Signature(SMALL), **options)


def test_requests_that_cannot_be_met_are_refused(model):
    for options in ({"temperature": -1.0}, {"top_k": 0}, {"length": 2, "prompt": torch.tensor([0, 0, 0])}):
        with pytest.raises(OptionError):
            model.sample(2, **options)
    with pytest.raises(ShapeError):
        model.sample(2, prompt=torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(OptionError, match="divide"):
        model.bits_per_token(torch.zeros(4, 4, dtype=torch.int64), streams=3)
    with pytest.raises(ShapeError):
        model.bits_per_token(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DomainError, match="Tokens"):
        LSTM.for_data(Signature(Categories((2, 2))))
