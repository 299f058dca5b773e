"""Mixtures of every kind against plain loops, scipy, sums over all states, and the laws of EM."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multinomial, multivariate_t, nbinom
from torch import Tensor

import leadline as ll
from leadline.core import Bits, Categories, Counts, DataError, DomainError, OptionError, ShapeError, Vectors
from leadline.models.graphical.discrete import Discrete
from leadline.models.graphical.gmm import GMM
from leadline.models.graphical.lengths import Lengths
from leadline.models.graphical.mixture import Mixture
from leadline.models.graphical.student import Students
from tests.tiny import tiny

HELD = {"bits": "bernoulli", "categories": "categorical", "counts": "multinomial", "vectors": "student"}
every_kind = pytest.mark.parametrize("kind", HELD)


def started(kind: str, **options: Any) -> Mixture:
    """Return a float64 mixture over tiny data after one sweep, so that its trial stands somewhere."""
    torch.manual_seed(0)
    data = tiny(kind)
    made = Mixture.for_data(data, components=3, component=HELD[kind], tolerance=-math.inf, **options).double()  # type: ignore[arg-type]
    made.sweep(data.train.x)
    return made


@every_kind
def test_the_likelihood_never_falls_and_is_the_bound_after_the_e_step(kind: str) -> None:
    x, made, last = tiny(kind).train.x, started(kind), -math.inf
    for _ in range(25):
        moved = int(made.progress[2])
        made.sweep(x)
        objective = float(made.objectives[1].sum())
        if int(made.progress[2]) == moved and math.isfinite(last):
            assert objective >= last - 1e-9
        last = objective
    with torch.no_grad():
        joint = torch.cat([scores for _, scores in made._scored(x, made.best)])
        share = made.encode(x)
        bound = (share * (joint - share.clamp(min=1e-300).log())).sum(1) + made._beside(x)
    assert torch.allclose(bound, made.log_prob(x), atol=1e-9)
    told = made.sweep(x)
    prior = made.best.gaussians.log_prior() / len(x) if kind == "vectors" else 0.0
    assert told == pytest.approx(float(made.log_prob(x).mean()) + prior, abs=1e-9)
    assert prior < 0 or kind != "vectors"


@pytest.mark.parametrize("component", ["gaussian", "student"])
def test_few_rows_leave_a_density_that_holds_for_rows_not_seen(component: Any) -> None:
    x = torch.empty(1020, 5).normal_(generator=torch.Generator().manual_seed(2))
    nats = {}
    for prior in (0, None):
        torch.manual_seed(0)
        made = Mixture(Vectors.standard(5), 8, component, prior=prior)
        while not made.converged:
            made.sweep(x[:20])
        nats[prior] = float(made.log_prob(x[20:]).mean())
    assert nats[None] > -5 * 0.5 * math.log(2 * math.pi * math.e) - 10  # the entropy of five unit normals
    assert nats[None] > nats[0] + 5


def test_a_step_of_one_student_with_a_prior_ends_where_no_other_shape_is_more_probable() -> None:
    x = tiny("vectors").train.x.double()
    made = Mixture(
        Vectors.standard(x.shape[1]), 1, "student", degrees=4.0, prior=9.0, tolerance=1e-14
    ).double()
    while not made.converged:
        made.sweep(x)
    found = made.best.gaussians.scale.clone()
    best = float(made.log_prob(x).sum()) + made.best.gaussians.log_prior()
    for entry in found.nonzero().tolist():
        for change in (-1e-3, 1e-3):
            made.best.gaussians.scale[tuple(entry)] += change
            assert float(made.log_prob(x).sum()) + made.best.gaussians.log_prior() < best
            made.best.gaussians.scale.copy_(found)


def plain_em(x: np.ndarray, p: np.ndarray, w: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Return the mean log-likelihoods and tables of a Bernoulli mixture, one row and component at a time."""
    told = []
    for _ in range(steps):
        joint = np.empty((len(x), len(w)))
        for i, k in itertools.product(range(len(x)), range(len(w))):
            joint[i, k] = w[k] * math.prod(p[k, j] if x[i, j] else 1 - p[k, j] for j in range(x.shape[1]))
        told.append(float(np.log(joint.sum(1)).mean()))
        share = joint / joint.sum(1, keepdims=True)
        w = share.mean(0)
        p = (share.T @ x) / share.sum(0)[:, None]
    return told, p


def test_bernoulli_steps_are_those_of_a_plain_loop() -> None:
    data = tiny("bits")
    made = Mixture.for_data(data, components=3, tolerance=-math.inf, floor=1e-9).double()
    made._begin(data.train.x)
    made._remember(-math.inf, -math.inf, 0, 1, 0)
    p = made.trial.log_p.exp().view(3, 9, 2)[:, :, 1].numpy().copy()
    told, table = plain_em(data.train.x.flatten(1).numpy(), p, np.full(3, 1 / 3), 11)
    ours = [made.sweep(data.train.x) for _ in range(11)]
    assert ours == pytest.approx(told, abs=1e-9)
    assert np.allclose(made.trial.log_p.exp().view(3, 9, 2)[:, :, 1].numpy(), table, atol=1e-7)


def test_gaussian_components_are_those_of_gmm() -> None:
    data = tiny("vectors")
    made = Mixture.for_data(data, components=3, tolerance=-math.inf).double()
    other = GMM(data.domain, 3, tolerance=-math.inf).double()
    made._begin(data.train.x)
    other.trial.load_state_dict(made.trial.state_dict())
    for model in (made, other):
        model._remember(-math.inf, -math.inf, 0, 1, 0)
    assert [made.sweep(data.train.x) for _ in range(10)] == pytest.approx(
        [other.sweep(data.train.x) for _ in range(10)], abs=1e-10
    )
    assert torch.allclose(made.log_prob(data.test.x), other.log_prob(data.test.x))


def test_a_multinomial_score_is_that_of_scipy_times_the_length() -> None:
    made, x = started("counts"), tiny("counts").test.x
    assert made.length is not None
    w, p = made.best.log_weights.exp().numpy(), made.best.log_p.exp().numpy()
    p = p / p.sum(1, keepdims=True)
    rows = [sum(w[k] * multinomial.pmf(row, int(row.sum()), p[k]) for k in range(3)) for row in x.numpy()]
    wanted = torch.tensor(rows, dtype=torch.float64).log() + made.length.log_prob(x.sum(1))
    assert torch.allclose(made.log_prob(x), wanted, atol=1e-5)


def test_sparse_bags_take_the_same_steps() -> None:
    x = tiny("counts").train.x
    first, second = started("counts"), started("counts")
    assert [first.sweep(x) for _ in range(5)] == pytest.approx(
        [second.sweep(x.to_sparse()) for _ in range(5)], abs=1e-10
    )


def test_categorical_probabilities_sum_to_one_over_all_states() -> None:
    made = started("categories")
    assert float(made.log_prob(made.domain.states()).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_tables_at_the_floor_are_the_most_likely_ones(generator: torch.Generator) -> None:
    owners = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    parts = Discrete(1, owners, 0.3)
    sums = torch.tensor([[90.0, 8.0, 2.0, 0.0, 50.0, 50.0, 0.0]], dtype=torch.float64)
    p = parts._floored(sums)
    assert torch.allclose(parts._total(p)[0, [0, 4]], torch.ones(2, dtype=torch.float64))
    assert bool((p >= parts.least - 1e-12).all())
    best = float((sums * p.log()).sum())
    for _ in range(300):  # no other tables above the floor are likelier
        step = 0.02 * torch.randn(7, generator=generator, dtype=torch.float64)
        other = (p + step).clamp(min=0)
        free = other / parts._total(other)
        other = parts.least + (1 - parts._total(parts.least[None])) * free
        assert float((sums * other.log()).sum()) <= best + 1e-9


def test_student_scores_are_those_of_scipy() -> None:
    made, x = started("vectors"), tiny("vectors").test.x.double()
    for _ in range(3):
        made.sweep(tiny("vectors").train.x)
    g, u = made.best.gaussians, made.domain.features(x, made.best.log_weights).numpy()
    shapes = (g.scale @ g.scale.mT).numpy()
    rows = sum(
        float(g.log_weights[k].exp())
        * multivariate_t.pdf(u, g.means[k].numpy(), shapes[k], df=float(made.best.degrees[k]))
        for k in range(3)
    )
    wanted = torch.as_tensor(rows).log() + made.domain.log_volume
    assert torch.allclose(made.log_prob(x), wanted, atol=1e-8)


def tailed(n: int, degrees: float) -> Tensor:
    rng = np.random.default_rng(4)
    return torch.from_numpy(multivariate_t.rvs([3.0, -1.0], [[2, 0.5], [0.5, 1]], degrees, n, rng)).float()


def test_degrees_of_freedom_are_found_and_outliers_do_not_move_the_centre() -> None:
    made = Mixture(Vectors.standard(2), 1, "student", tolerance=1e-7).double()
    x = tailed(8000, 4.0)
    while not made.converged:
        made.sweep(x)
    assert float(made.best.degrees[0]) == pytest.approx(4, rel=0.12)
    assert torch.allclose(made.means[0], torch.tensor([3.0, -1.0], dtype=torch.float64), atol=0.06)
    spoilt = torch.cat([x[:500], torch.full((25, 2), 200.0)])
    robust, plain = (
        Mixture(Vectors.standard(2), 1, kind, **options).double()  # type: ignore[arg-type]
        for kind, options in (("student", {"degrees": 3.0}), ("gaussian", {}))
    )
    for model in (robust, plain):
        while not model.converged:
            model.sweep(spoilt)
    assert float((robust.means[0] - torch.tensor([3.0, -1.0])).abs().max()) < 0.3
    assert float((plain.means[0] - torch.tensor([3.0, -1.0])).abs().max()) > 5
    assert torch.equal(robust.best.degrees, torch.tensor([3.0], dtype=torch.float64))


def test_samples_of_student_components_have_their_spread(generator: torch.Generator) -> None:
    made = Mixture(Vectors.standard(2), 1, "student", degrees=7.0)
    shape = torch.tensor([[2.0, 0.6], [0.6, 1.0]])
    made.best.gaussians.place(torch.zeros(1), torch.tensor([[3.0, -1.0]]), shape[None])
    x = made.sample(40_000, generator)
    wanted = shape * 7 / 5  # covariance v / (v - 2) S
    assert torch.allclose(torch.cov(x.T), wanted, atol=0.08)
    # excess kurtosis of a t with v = 7 is 6 / (v - 4) = 2
    z = (x[:, 0] - 3) / float(wanted[0, 0]) ** 0.5
    assert float(z.pow(4).mean()) > 4


@every_kind
def test_planted_groups_are_found(kind: str, generator: torch.Generator) -> None:
    truth = torch.arange(300) % 2
    if kind == "vectors":
        domain, x = Vectors.standard(2), torch.randn(300, 2, generator=generator) + 8 * truth[:, None]
    elif kind == "counts":
        domain = Counts(tuple("abcd"))
        x = torch.poisson(1 + 9.0 * (torch.arange(4) // 2 == truth[:, None]), generator).long()
    else:
        domain = Bits((12,)) if kind == "bits" else Categories((2,) * 12)
        chance = torch.where((torch.arange(12) % 2 == truth[:, None]), 0.9, 0.1)
        x = torch.bernoulli(chance, generator=generator).to(domain.dtype)
    torch.manual_seed(3)
    made = Mixture(domain, 2, HELD[kind], restarts=3)  # type: ignore[arg-type]
    while not made.converged:
        made.sweep(x)
    found = made.assign(x)
    assert max(float((found == truth).float().mean()), float((found != truth).float().mean())) > 0.97
    assert made.means.shape == (2, *domain.shape)
    assert made.bic(x) > -2 * float(made.log_prob(x).sum())


def test_an_empty_component_is_put_back_among_the_data() -> None:
    x = tiny("bits").train.x
    made = Mixture(tiny("bits").domain, 3, tolerance=1e-7)
    made._begin(x)
    made._remember(-math.inf, -math.inf, 0, 1, 0)
    made.trial.log_weights.copy_(torch.tensor([0.0, 0.0, -1000.0]))
    made.sweep(x)
    assert int(made.progress[2]) == 1
    while not made.converged:
        made.sweep(x)
    assert float(made.encode(x).sum(0).min()) > 1
    assert made.progress.tolist() == [1, 0, 0]  # a next start may move components again


def test_a_revived_table_stands_between_its_sample_and_all_samples() -> None:
    parts = Discrete(2, torch.zeros(3, dtype=torch.int64), 1e-3)
    before = parts.log_p[0].clone()
    parts.log_weights.copy_(torch.tensor([0.8, 0.2]).log())
    moments = torch.tensor([[4.0, 1, 1, 2], [0, 0, 0, 0]])
    parts.revive(torch.tensor([False, True]), torch.tensor([[4.0, 0, 0]]), moments)
    # half of (1, 0, 0) and half of (1, 1, 2) / 4
    assert torch.allclose(parts.log_p[1].exp(), torch.tensor([0.625, 0.125, 0.25]), atol=1e-6)
    assert torch.equal(parts.log_p[0], before)
    # weights 0.8 and 1/2, made to sum to one
    assert torch.allclose(parts.log_weights.exp(), torch.tensor([0.8, 0.5]) / 1.3)


@pytest.mark.parametrize(
    ("domain", "component", "count"),
    [
        (Bits((3,)), "bernoulli", 1 + 2 * 3),
        (Categories((2, 3)), "categorical", 1 + 2 * (1 + 2)),
        (Counts(tuple("abcd")), "multinomial", 1 + 2 * 3),
        (Counts(tuple("abcd")), "polya", 1 + 2 * 4),
        (Vectors.standard(2), "gaussian", 1 + 2 * (2 + 3)),
        (Vectors.standard(2), "student", 1 + 2 * (2 + 3 + 1)),
    ],
)
def test_parameters_are_counted(domain: Any, component: Any, count: int) -> None:
    made = Mixture(domain, 2, component)
    x = made.sample(40, torch.Generator().manual_seed(0))
    assert made.free_parameters == count
    wanted = count * math.log(40) - 2 * float(made.log_prob(x).double().sum())
    assert made.bic(x) == pytest.approx(wanted)


def test_known_degrees_are_no_parameters() -> None:
    assert Mixture(Vectors.standard(2), 2, "student", degrees=4.0).best.free_parameters == 1 + 2 * (2 + 3)


def test_means_codes_and_words_are_those_of_the_tables(generator: torch.Generator) -> None:
    made = Mixture(Categories((2, 3)), 2)
    made.best.log_weights.copy_(torch.tensor([0.3, 0.7]).log())
    made.best.log_p.copy_(torch.tensor([[0.25, 0.75, 0.2, 0.3, 0.5], [0.9, 0.1, 0.6, 0.3, 0.1]]).log())
    assert torch.allclose(made.means, torch.tensor([[0.75, 0.3 + 1.0], [0.1, 0.3 + 0.2]]))
    assert made.decode(torch.eye(2)).tolist() == [[1, 2], [0, 0]]
    n = 20_000
    x = made.sample(n, generator).double()
    wanted = torch.tensor([0.3 * 0.75 + 0.7 * 0.1, 0.3 * 1.3 + 0.7 * 0.5])
    assert bool(((x.mean(0) - wanted).abs() < 4 * x.std(0) / math.sqrt(n)).all())
    bags = Mixture(Counts(("sea", "line", "lead")), 1, "multinomial")
    bags.best.log_p.copy_(torch.tensor([[0.2, 0.5, 0.3]]).log())
    assert [word for word, _ in bags.top_words(2)[0]] == ["line", "lead"]
    bits = Mixture(Bits((2,), ("sea", "line")), 1)
    bits.best.log_p.copy_(torch.tensor([[0.8, 0.2, 0.4, 0.6]]).log())  # off, on, off, on
    assert [word for word, _ in bits.top_words()[0]] == ["line", "sea"]
    assert bits.top_words()[0][0][1] == pytest.approx(0.6)
    with pytest.raises(DomainError, match="no names"):
        Mixture(Bits((2,)), 1).top_words()


def test_lengths_are_negative_binomial() -> None:
    length = Lengths().double()
    length.learn(torch.tensor([0, 0, 10, 10]))
    # mean 5, variance 25, so 20 more than Poisson's: shape 25 / 20
    assert length.moments.tolist() == pytest.approx([5.0, 1.25])
    N = torch.arange(30)
    wanted = nbinom.logpmf(N.numpy(), 1.25, 1.25 / (1.25 + 5))
    assert torch.allclose(length.log_prob(N), torch.from_numpy(wanted), atol=1e-9)


def test_the_best_of_several_starts_is_kept() -> None:
    x = tiny("bits").train.x
    torch.manual_seed(0)
    made, values = Mixture(tiny("bits").domain, 4, restarts=6, tolerance=1e-6), []
    ends: list[float] = []
    while not made.converged:
        start = int(made.progress[0])
        values.append(made.sweep(x))
        if int(made.progress[0]) > start:
            ends.append(values[-1])
    assert values == sorted(values)
    assert len(set(ends)) > 1  # a later start was better
    assert values[-1] == pytest.approx(float(made.log_prob(x).mean()), abs=1e-4)


@every_kind
def test_a_saved_state_goes_on_bit_for_bit(kind: str) -> None:
    x = tiny(kind).train.x
    whole, resumed = (
        Mixture.for_data(tiny(kind), components=3, component=HELD[kind], restarts=2)  # type: ignore[arg-type]
        for _ in range(2)
    )
    for _ in range(4):
        whole.sweep(x)
    resumed.load_state_dict(whole.state_dict())
    random = torch.get_rng_state()
    first = [whole.sweep(x) for _ in range(12)]
    torch.set_rng_state(random)
    assert [resumed.sweep(x) for _ in range(12)] == first


def test_repeated_and_single_samples_are_held_at_the_floor() -> None:
    for kind, x in (("student", torch.ones(20, 2)), ("gaussian", torch.ones(20, 2))):
        made = Mixture(Vectors.standard(2), 3, kind, max_sweeps=8)  # type: ignore[arg-type]
        for _ in range(10):
            made.sweep(x)
        assert bool(torch.isfinite(made.log_prob(x)).all())
    single = Mixture(Bits((4,)), 1)
    single.sweep(torch.ones(1, 4, dtype=torch.uint8))
    assert bool(torch.isfinite(single.log_prob(torch.zeros(2, 4, dtype=torch.uint8))).all())


def test_what_cannot_be_learned_gets_a_clear_error() -> None:
    data = tiny("vectors")
    x = data.train.x.clone()
    x[7, 2] = math.nan
    for component in ("gaussian", "student"):
        with pytest.raises(ShapeError, match="sample 7, dimension 2"):
            Mixture.for_data(data, component=component).sweep(x)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="sample 0, dimension 1: -1"):
        Mixture.for_data(tiny("categories"), components=1).sweep(torch.tensor([[0, -1, 0]]))
    with pytest.raises(DataError, match=r"components \(8\), got 3"):
        Mixture.for_data(tiny("bits")).sweep(tiny("bits").train.x[:3])
    with pytest.raises(DomainError, match="Bits"):
        ll.build("mixture", tiny("bits"), component="multinomial")
    with pytest.raises(DomainError, match="vectors"):
        ll.build("mixture", tiny("table"))
    for options in ({"component": "magic"}, {"degrees": 3.0}, {"floor": 1.5}, {"components": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            ll.build("mixture", tiny("bits"), **options)
    with pytest.raises(OptionError, match="degrees"):
        ll.build("mixture", data, component="student", degrees=-1.0)
    with pytest.raises(OptionError, match="prior must be at least 0"):
        ll.build("mixture", data, prior=-1.0)
    with pytest.raises(OptionError, match="a prior is that of gaussian and student components"):
        ll.build("mixture", tiny("bits"), prior=1.0)
    with pytest.raises(ValueError, match="degrees"):
        Students(2, 2, math.nan, 1e-6)


def test_values_and_codes_of_another_kind_are_refused_in_one_line() -> None:
    model = Mixture(Bits((3,)), components=2)
    for wrong in (255.0, 0.5, math.nan):
        for ask in (model.log_prob, model.encode):
            with pytest.raises(ShapeError, match=r"sample 0, dimension 0: .* is not a value of Bits"):
                ask(torch.full((1, 3), wrong))
    with pytest.raises(ShapeError, match="expected a tensor of codes, got ndarray"):
        model.decode(np.zeros((1, 2)))  # type: ignore[arg-type]
