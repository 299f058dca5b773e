"""Polya components against scipy, sums over all bags, multinomials as a limit, and the laws of EM."""

import math

import pytest
import torch
from scipy.stats import dirichlet_multinomial
from torch import Tensor

import leadline as ll
from leadline.core import Counts, OptionError
from leadline.models.graphical.lengths import log_orders
from leadline.models.graphical.mixture import Mixture
from leadline.models.graphical.polya import Polya
from tests.tiny import tiny

STRENGTH = torch.tensor([[0.3, 1.2, 0.5], [4.0, 0.2, 2.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)


def parts(strength: Tensor = STRENGTH, weights: Tensor = WEIGHTS) -> Polya:
    """Return components with these parameters, in float64."""
    made = Polya(*strength.shape, floor=1e-6).double()
    made.strength.copy_(strength)
    made.log_weights.copy_(weights.log())
    made.least.fill_(1e-9)
    return made


def bags_of_three() -> Tensor:
    side = torch.arange(4)
    x = torch.cartesian_prod(side, side, side)
    return x[x.sum(1) == 3]


def bursts(n: int = 300, strength: float = 0.05) -> Tensor:
    """Return bags of 20 tokens over 30 words, from one Polya distribution."""
    source = torch.Generator().manual_seed(1)
    made = Polya(1, 30, 0.01)
    made.strength.fill_(strength)
    p = made.tables(torch.zeros(n, dtype=torch.int64), source)
    words = torch.multinomial(p, 20, replacement=True, generator=source)
    return torch.zeros(n, 30, dtype=torch.int64).scatter_add_(1, words, torch.ones_like(words))


def test_scores_are_those_of_scipy_and_sum_to_one_over_all_bags() -> None:
    made, x = parts(), bags_of_three()
    told = made.scores(x.double()) + log_orders(x)[:, None]
    for k in range(2):
        wanted = [
            dirichlet_multinomial.logpmf(row, STRENGTH[k].numpy(), 3) + math.log(WEIGHTS[k])
            for row in x.numpy()
        ]
        assert torch.allclose(told[:, k], torch.tensor(wanted, dtype=torch.float64), atol=1e-12)
    assert float(torch.logsumexp(told.flatten(), 0)) == pytest.approx(0, abs=1e-12)


def test_dense_and_sparse_bags_have_equal_scores_and_moments() -> None:
    made, x = parts(), bags_of_three().double()
    share = torch.rand(len(x), 2, dtype=torch.float64)
    assert torch.allclose(made.scores(x), made.scores(x.to_sparse()))
    assert torch.allclose(made.moments(x, share), made.moments(x.to_sparse(), share))
    empty = torch.zeros(1, 3, dtype=torch.float64)
    assert torch.allclose(made.scores(empty), WEIGHTS.log())  # no token, nothing to tell


def test_strong_components_are_multinomial() -> None:
    p = STRENGTH / STRENGTH.sum(1, keepdim=True)
    x = bags_of_three().double()
    wanted = x @ p.log().T + WEIGHTS.log()
    assert torch.allclose(parts(1e8 * p).scores(x), wanted, atol=1e-6)
    assert torch.allclose(parts().log_p.exp(), p)


def test_a_step_moves_the_strengths_along_their_gradient() -> None:
    made, x = parts(), bags_of_three().double()
    share = torch.softmax(made.scores(x), 1)
    strength = STRENGTH.clone().requires_grad_()
    N, A = x.sum(1), strength.sum(1)
    terms = (torch.lgamma(strength + x[:, None]) - torch.lgamma(strength)).sum(2)
    told = terms + torch.lgamma(A) - torch.lgamma(A + N[:, None])
    (share * told).sum().backward()  # type: ignore[no-untyped-call]
    moments = made.moments(x, share)
    # d / d a_w = above_w - below
    assert torch.allclose(strength.grad, moments[:, 1:-1] - moments[:, -1:], atol=1e-10)
    made.maximise(moments)
    assert torch.allclose(made.strength, STRENGTH * moments[:, 1:-1] / moments[:, -1:])
    assert torch.allclose(made.log_weights.exp(), share.mean(0))


def test_the_likelihood_never_falls_at_the_floor_either() -> None:
    x, last = tiny("counts").train.x.clone(), -math.inf
    x[:, 0] = 0  # a word that never occurs
    made = Mixture(tiny("counts").domain, 3, "polya", tolerance=-math.inf, floor=0.3).double()
    for _ in range(30):
        moved = int(made.progress[2])
        made.sweep(x)
        objective = float(made.objectives[1].sum())
        if int(made.progress[2]) == moved and math.isfinite(last):
            assert objective >= last - 1e-9
        last = objective
    assert torch.allclose(made.best.strength[:, 0], made.best.least)
    assert made.sweep(x) == pytest.approx(float(made.log_prob(x).mean()), abs=1e-9)


def test_planted_strengths_are_found_and_multinomials_do_worse_on_bursts() -> None:
    x, held = bursts(), bursts(400)[300:]
    found, plain = (Mixture(Counts(tuple(map(str, range(30)))), 1, kind) for kind in ("polya", "multinomial"))  # type: ignore[arg-type]
    for model in (found, plain):
        while not model.converged:
            model.sweep(x.to_sparse())
    assert float(found.best.strength.sum()) == pytest.approx(30 * 0.05, rel=0.15)
    assert float((found.log_prob(held) - plain.log_prob(held)).mean()) > 5


def test_tables_have_the_moments_of_a_dirichlet(generator: torch.Generator) -> None:
    n = 20_000
    tables = parts().tables(torch.ones(n, dtype=torch.int64), generator)
    p, A = STRENGTH[1] / STRENGTH[1].sum(), float(STRENGTH[1].sum())
    assert bool(((tables.mean(0) - p).abs() < 4 * tables.std(0) / math.sqrt(n)).all())
    assert torch.allclose(tables.var(0), p * (1 - p) / (A + 1), rtol=0.1)


def test_an_empty_component_is_put_between_its_sample_and_all() -> None:
    made = parts()
    moments = torch.cat([torch.tensor([[5.0], [0.0]]).double(), STRENGTH, torch.ones(2, 1).double()], 1)
    assert made.maximise(moments).tolist() == [False, True]
    assert torch.equal(made.strength[1], STRENGTH[1])
    made.strength.copy_(STRENGTH)
    made.revive(torch.tensor([False, True]), torch.tensor([[6.0, 0, 0]]), moments)
    every = STRENGTH.mean(0) / STRENGTH.mean(0).sum()
    wanted = float(STRENGTH.sum(1).mean()) / 2 * (torch.tensor([1.0, 0, 0]) + every)
    assert torch.allclose(made.strength[1], wanted)


def test_it_is_built_by_name_and_refuses_what_it_cannot_hold() -> None:
    data = tiny("counts")
    model = ll.build("mixture", data, component="polya", components=2)
    model.sweep(data.train.x)  # type: ignore[operator]
    x = model.sample(9, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert data.domain.validated(x).shape == (9, *data.domain.shape)
    assert model.decode(model.encode(x)).dtype == torch.int64  # type: ignore[operator]
    assert not ll.verify(model, data).broken
    with pytest.raises(OptionError, match="floor"):
        ll.build("mixture", data, component="polya", floor=1.5)
