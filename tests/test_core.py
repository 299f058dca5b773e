"""The ground floor: domains, likelihood heads, labels, quantities, randomness."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leadline.core import (
    Bits,
    Categories,
    Classes,
    Counts,
    DataError,
    Domain,
    DomainError,
    Images,
    OptionError,
    Quantity,
    ShapeError,
    Table,
    Targets,
    Tokens,
    Vectors,
    bootstrap_interval,
    domain_from_json,
    labels_from_json,
    mean_quantity,
    verbs_of,
    way_of,
)
from leadline.core.errors import nearest, require_extra, unknown_name
from leadline.core.randomness import categorical, derive_seed, normal_of_rows, uniform_of_rows
from tests.tiny import EVEN, tiny

DOMAINS = [tiny(kind).domain for kind in EVEN if kind != "targets"]
HEADS = [(domain, head) for domain in DOMAINS for head in domain.heads]
DISCRETE = [(d.shrunken(), h) for d, h in HEADS if d.cardinalities is not None]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_a_domain_comes_back_from_its_description(domain: Domain) -> None:
    assert domain_from_json(json.loads(json.dumps(domain.to_json()))) == domain


@pytest.mark.parametrize(("domain", "head"), HEADS, ids=str)
def test_a_head_draws_raw_values_that_it_gives_a_finite_density(domain: Domain, head: str) -> None:
    likelihood = domain.likelihood(head)
    params = torch.randn(7, likelihood.parameters)
    x = likelihood.sample(params)
    assert x.dtype == domain.dtype
    domain.validated(x)
    domain.validated(likelihood.point(params))
    each = likelihood.log_prob_each(params, x)
    assert each.shape == (7, domain.dims)
    torch.testing.assert_close(each.sum(-1), likelihood.log_prob(params, x))
    assert bool(torch.isfinite(each).all())


@pytest.mark.parametrize(("domain", "head"), DISCRETE, ids=str)
def test_probabilities_of_all_states_of_a_head_sum_to_one(domain: Domain, head: str) -> None:
    likelihood = domain.likelihood(head)
    states = domain.states()
    params = torch.randn(1, likelihood.parameters, dtype=torch.float64).expand(len(states), -1)
    assert float(likelihood.log_prob(params, states).exp().sum()) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("domain", "head"), DISCRETE, ids=str)
def test_samples_of_a_head_have_the_frequencies_of_its_density(domain: Domain, head: str) -> None:
    likelihood = domain.likelihood(head)
    params = torch.randn(1, likelihood.parameters)
    n = 20_000
    x = likelihood.sample(params.expand(n, -1)).flatten(1).double()
    states = domain.states()
    weights = likelihood.log_prob(params.double().expand(len(states), -1), states).exp()
    flat = states.flatten(1).double()
    mean, square = weights @ flat, weights @ flat.square()
    allowed = 4.5 * ((square - mean.square()).clamp(min=1e-12) / n).sqrt() + 1e-9
    assert bool(((x.mean(0) - mean).abs() <= allowed).all())


def test_the_normal_head_is_the_normal_density_in_raw_units() -> None:
    domain = Vectors(("a", "b"), (5.0, -2.0), (3.0, 0.1))
    params = torch.tensor([[0.5, 0.2, -1.0, -0.3]])
    x = torch.tensor([[4.0, -2.1]])
    mean = torch.tensor([5 + 0.5 * 3, -2 - 1.0 * 0.1])
    scale = torch.tensor([3 * math.exp(0.2), 0.1 * math.exp(-0.3)])
    expected = torch.distributions.Normal(mean, scale).log_prob(x).sum(-1)
    torch.testing.assert_close(domain.likelihood().log_prob(params, x), expected)


def test_parameters_of_a_dimension_stand_where_owners_say() -> None:
    domain = Categories((2, 3, 4))
    likelihood = domain.likelihood()
    params = torch.randn(5, 9)
    x = torch.tensor([[1, 2, 3]]).expand(5, 3)
    before = likelihood.log_prob_each(params, x)
    for dim in range(3):
        changed = params.clone()
        changed[:, likelihood.owners == dim] += torch.randn(5, int((likelihood.owners == dim).sum()))
        moved = (likelihood.log_prob_each(changed, x) - before).abs().sum(0) > 1e-6
        assert moved.tolist() == [place == dim for place in range(3)]


@pytest.mark.parametrize("head", ["categorical", "discretized_logistic"])
def test_the_output_of_a_convolution_lands_on_its_own_pixel(head: str) -> None:
    domain = Images(3, 2, 2, 4)
    likelihood = domain.likelihood(head)
    k = likelihood.parameters // domain.dims
    planes = torch.zeros(1, 3 * k, 2, 2)
    planes[0, 2 * k : 3 * k, 1, 0] = torch.arange(1.0, k + 1)  # channel 2, row 1, column 0
    flat = likelihood.from_planes(planes)[0]
    dim = 2 * 4 + 1 * 2 + 0
    assert flat[likelihood.owners == dim].tolist() == list(range(1, k + 1))
    assert float(flat[likelihood.owners != dim].abs().sum()) == 0


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_features_have_the_owners_that_the_domain_says(domain: Domain) -> None:
    x = domain.validated(tiny(domain.kind).train.x[:20])
    features = domain.features(x)
    assert features.shape == (20, domain.feature_count)
    other = tiny(domain.kind).train.x[20:40].clone()
    for dim in range(domain.dims):
        changed = x.clone()
        changed.flatten(1)[:, dim] = other.flatten(1)[:, dim]
        moved = (domain.features(changed) != features).any(0)
        assert bool((domain.feature_owners[moved] == dim).all())


def test_features_leave_a_float_input_alone_and_carry_its_gradient() -> None:
    domain = Images(1, 2, 2, 16)
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    domain.features(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([2 / 15] * 4)
    assert x.tolist() == torch.full((1, 1, 2, 2), 3.0).tolist()
    raw = torch.full((1, 1, 2, 2), 3, dtype=torch.uint8)
    domain.features(raw)
    assert raw.flatten().tolist() == [3] * 4


@given(st.integers(2, 256), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_dequantised_levels_come_back(levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    domain = Images(1, 3, 3, levels)
    x = torch.randint(0, levels, (5, 1, 3, 3), generator=generator).to(torch.uint8)
    noise = uniform_of_rows(x, 9)[0].view(5, 1, 3, 3)
    u = domain.continuous(x, noise, like=torch.empty(0, dtype=torch.float64))
    assert bool((u >= 0).all())
    assert bool((u < 1).all())
    assert torch.equal(domain.quantize(u), x)


def test_uniform_noise_costs_log_levels_bits_a_pixel() -> None:
    domain = Images(1, 28, 28, 256)
    assert -domain.log_volume / math.log(2) / domain.dims == pytest.approx(8.0)
    # (1980.50 nats / 784 + ln 256) / ln 2 would be the bits of a density on [0, 1): the published 4.3555 has
    # its logarithm already in it: 1980.50 / 784 / ln 2 = 3.6444; 8 - 3.6444 = 4.3556
    assert 8 - 1980.50 / 784 / math.log(2) == pytest.approx(4.3555, abs=2e-4)


def test_a_column_alone_has_the_features_and_head_of_its_place() -> None:
    for kind in ("images", "bits", "vectors", "categories", "table", "tokens"):
        domain = tiny(kind).domain
        x = tiny(kind).train.x[:6]
        likelihood = domain.likelihood()
        params = torch.randn(6, likelihood.parameters)
        each, features = likelihood.log_prob_each(params, x), domain.features(x)
        for dim in range(domain.dims):
            column = domain.column(dim)
            alone = x.flatten(1)[:, dim].view(6, *column.shape).to(column.dtype)
            own = params[:, likelihood.owners == dim]
            torch.testing.assert_close(column.likelihood().log_prob(own, alone), each[:, dim])
            torch.testing.assert_close(column.features(alone), features[:, domain.feature_owners == dim])


def test_wrong_samples_are_named() -> None:
    images = Images(1, 2, 2, 4)
    with pytest.raises(ShapeError, match=r"samples of shape \(n, 1, 2, 2\), got \(3, 4\)"):
        images.features(torch.zeros(3, 4, dtype=torch.uint8))
    bad = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    bad[1, 0, 1, 0] = 9
    with pytest.raises(ShapeError, match="sample 1, dimension 2: 9"):
        images.validated(bad)
    with pytest.raises(ShapeError, match="nan"):
        Vectors.standard(2).validated(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ShapeError, match="expected a tensor"):
        images.checked([[1, 2]])  # type: ignore[arg-type]


def test_a_domain_that_does_not_fit_names_the_ones_that_do_and_the_conversion() -> None:
    with pytest.raises(DomainError, match=r"needs Bits.*binarize"):
        Images(1, 2, 2).require(Bits)
    with pytest.raises(DomainError, match=r"needs Vectors or Images.*vectors\(\)"):
        Categories((2, 3)).require(Vectors, Images)
    for columns in (Vectors.standard(3), Table(Vectors.standard(1), Categories((2,)))):
        with pytest.raises(DomainError, match=r"categorical=\*"):
            columns.require(Categories)
    with pytest.raises(DomainError) as refused:
        Images(1, 2, 2).require(Categories)
    assert "categorical" not in str(refused.value)
    with pytest.raises(DomainError, match="no real coordinates"):
        Categories((2, 3)).continuous(torch.zeros(1, 2))
    with pytest.raises(OptionError, match="bernoulli"):
        Images(1, 2, 2).likelihood("bernoulli")
    with pytest.raises(DomainError, match="too many states"):
        Images(1, 8, 8).states()
    with pytest.raises(DataError, match="domain"):
        domain_from_json({"kind": "sounds"})
    with pytest.raises(DataError, match="domain"):
        domain_from_json({"kind": "images", "width": 3})


def test_class_labels_ignore_unknown_rows_and_smooth_as_torch_does() -> None:
    labels = Classes(("a", "b", "c"))
    scores = torch.randn(6, 3, requires_grad=True)
    y = torch.tensor([0, 1, -1, 2, -1, 0])
    known = y >= 0
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(scores[known], y[known], label_smoothing=smoothing)
        torch.testing.assert_close(labels.loss(scores, y, smoothing), expected)
    nothing = labels.loss(scores, torch.full((6,), -1))
    nothing.backward()
    assert nothing.item() == 0
    assert scores.grad is not None
    assert float(scores.grad.abs().sum()) == 0


def test_real_targets_are_predicted_in_raw_units_and_unknown_ones_cost_nothing() -> None:
    labels = Targets(("t",), (10.0,), (2.0,))
    outputs = torch.tensor([[0.5], [-1.0]], requires_grad=True)
    assert labels.predict(outputs).flatten().tolist() == [11.0, 8.0]
    loss = labels.loss(outputs, torch.tensor([[13.0], [float("nan")]]))
    assert loss.item() == pytest.approx(0.5 * (0.5 - 1.5) ** 2)
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.flatten().tolist() == [-1.0, 0.0]
    with pytest.raises(OptionError, match="classes"):
        labels.loss(outputs, torch.zeros(2, 1), 0.1)


@pytest.mark.parametrize("labels", [Classes(("a", "b")), Targets(("t",), (1.0,), (2.0,)), None])
def test_labels_come_back_from_their_description(labels: Any) -> None:
    fields = None if labels is None else json.loads(json.dumps(labels.to_json()))
    assert labels_from_json(fields) == labels


def test_row_noise_is_uniform_repeatable_and_its_own() -> None:
    x = torch.randint(0, 4, (400, 6))
    noise = uniform_of_rows(x, 50, 3)
    assert torch.equal(noise, uniform_of_rows(x, 50, 3))
    assert torch.equal(noise[:, 7:8], uniform_of_rows(x[7:8], 50, 3))
    distinct = uniform_of_rows(torch.arange(2000).view(-1, 1), 30)
    n = distinct.numel()
    assert abs(float(distinct.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(float(distinct.var()) - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    correlation = torch.corrcoef(distinct[0].T).fill_diagonal_(0).abs().max()
    assert float(correlation) < 5 / math.sqrt(2000)
    assert abs(float(normal_of_rows(torch.arange(2000).view(-1, 1), 30).std()) - 1) < 0.02


def test_categorical_draws_follow_their_weights() -> None:
    logits = torch.log(torch.tensor([0.5, 0.2, 0.3])).expand(30_000, 3)
    shares = torch.bincount(categorical(logits), minlength=3) / 30_000
    assert bool(((shares - torch.tensor([0.5, 0.2, 0.3])).abs() < 4 * math.sqrt(0.25 / 30_000)).all())
    impossible = torch.tensor([[0.0, -math.inf]]).expand(5000, 2)
    assert int(categorical(impossible).sum()) == 0


def test_seeds_depend_on_every_key() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert len({derive_seed(1, "a"), derive_seed(1, "b"), derive_seed(2, "a"), derive_seed(1, "a", 0)}) == 4


def test_a_quantity_keeps_its_kind_through_units() -> None:
    bound = Quantity(-70.0, "nats", "lower bound", 2.0, (-74.0, -66.0), 100)
    bits = bound.scaled(-1 / (64 * math.log(2)), "bits/dim")
    assert bits.kind == "upper bound"
    assert bits.value == pytest.approx(70 / 64 / math.log(2))
    assert bits.stderr == pytest.approx(2 / 64 / math.log(2))
    assert bits.interval is not None
    assert bits.interval[0] < bits.value < bits.interval[1]
    assert str(bits).startswith("≤ 1.578")
    assert Quantity(math.nan).to_json()["value"] is None


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(400, 50, generator=generator)
    quantities = [mean_quantity(row) for row in draws]
    hits = sum(q.interval is not None and q.interval[0] < 0 < q.interval[1] for q in quantities)
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400) - 0.02 < hits / 400 < 1
    low, high = bootstrap_interval(draws[0])
    assert low < float(draws[0].mean()) < high
    shared = mean_quantity(draws[0], shared_stderr=3.0)
    assert shared.stderr is not None
    assert shared.stderr > 3.0


def test_mistyped_names_suggest_the_nearest() -> None:
    assert nearest("vea", ["vae", "gan"]) == ' (did you mean "vae"?)'
    assert nearest("zzzz", ["vae"]) == ""
    assert "known: gan, vae" in str(unknown_name("model", "vea", ["vae", "gan"]))
    with pytest.raises(ImportError, match=r"pip install 'leadline\[audio\]'"):
        require_extra("no_such_module_here", "audio")


def test_verbs_and_ways_are_what_a_module_has() -> None:
    class Speaks(torch.nn.Module):
        def decode(self, z: Tensor) -> Tensor:
            return z

        def predict(self, x: Tensor) -> Tensor:
            return x

        def stages(self) -> list[torch.nn.Module]:
            return []

        def loss(self, batch: object) -> Tensor:
            return torch.zeros(())

    assert verbs_of(Speaks()) == ("predict", "decode")
    assert way_of(Speaks()) == "descend"


def test_a_table_is_shown_by_its_names() -> None:
    table = Table(Vectors(("age",), (0.0,), (1.0,)), Categories((2,), ("sex",), (("f", "m"),)))
    assert table.show(torch.tensor([41.5, 1.0])) == "age=41.5, sex=m"
    assert Tokens(("a", "b"), 3).show(torch.tensor([0, 1, 0])) == "aba"


def test_bits_may_have_names_and_without_them_are_described_as_before() -> None:
    named, plain = Bits((3,), ("sea", "line", "lead")), Bits((3,))
    assert named != plain
    assert named.names == ("sea", "line", "lead")
    assert plain.names == ()
    assert domain_from_json(json.loads(json.dumps(named.to_json()))) == named
    assert plain.to_json() == {"kind": "bits", "size": (3,)}
    x = torch.tensor([1, 0, 1], dtype=torch.uint8)
    assert named.show(x) == "sea, lead"
    assert named.show(0 * x) == "none"
    assert plain.show(x) == "101"
    assert named.column(1).names == ("line",)
    assert Counts(("a", "b")).names == ("a", "b")
    with pytest.raises(OptionError, match="3 bits, but 2 names"):
        Bits((3,), ("a", "b"))
