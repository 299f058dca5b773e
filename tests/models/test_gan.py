"""Adversarial games: exact optima on finite distributions, penalties by hand, who moves what."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leadline.core import Batch, Bits, DomainError, Images, OptionError, ShapeError, Signature, Vectors
from leadline.models.adversarial.gan import GAN, OBJECTIVES, slopes
from tests.tiny import tiny

KINDS = ("images", "bits", "vectors")


def build(kind: str = "images", **options: object) -> GAN:
    return GAN.for_data(tiny(kind), latent=3, hidden=(8,), channels=(4, 8), **options)  # type: ignore[arg-type]


# --- objectives on finite distributions -----------------------------------------------------------

P, Q = torch.tensor([4, 3, 1, 0]), torch.tensor([1, 1, 2, 4])  # of 8 each


def spread(scores: Tensor, counts: Tensor) -> Tensor:
    """Return the score of each of 8 samples whose empirical distribution is counts / 8."""
    return scores.repeat_interleave(counts)


def test_the_best_discriminator_is_the_density_ratio_and_its_value_the_divergence() -> None:
    p, q = P.double() / 8, Q.double() / 8
    middle = (p + q) / 2
    divergence = (torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)).sum() / 2
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = OBJECTIVES["nonsaturating"].critic
    climber = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def close() -> Tensor:
        climber.zero_grad()
        value = loss(spread(logits, P), spread(logits, Q))
        value.backward()
        return value

    climber.step(close)
    torch.testing.assert_close(logits.detach().sigmoid(), p / (p + q), rtol=0, atol=1e-3)
    exact = torch.logit(p / (p + q), eps=1e-12)
    value = -loss(spread(exact, P), spread(exact, Q))
    assert value.item() == pytest.approx(2 * divergence.item() - math.log(4), abs=1e-9)


def test_the_value_is_minus_log_four_where_both_are_equal() -> None:
    even = torch.zeros(8)
    assert -OBJECTIVES["nonsaturating"].critic(even, even).item() == pytest.approx(-math.log(4), abs=1e-6)


def test_the_generator_raises_the_log_probability_of_being_real() -> None:
    scores = torch.tensor([-1.0, 0.5, 2.0])
    expected = -scores.sigmoid().log().mean()
    torch.testing.assert_close(OBJECTIVES["nonsaturating"].generator(scores), expected)
    # Steepest where the discriminator is surest: the reason for not saturating.
    far = torch.tensor([-8.0], requires_grad=True)
    OBJECTIVES["nonsaturating"].generator(far).backward()
    assert far.grad is not None
    assert far.grad.item() == pytest.approx(-1, abs=1e-3)


def test_a_critic_of_slope_one_is_bounded_by_the_transport_distance(generator) -> None:
    real = torch.randn(200, generator=generator).sort().values
    fake = 2 * torch.randn(200, generator=generator).sort().values + 0.5
    distance = (real - fake).abs().mean()  # in one dimension, of sorted samples
    loss = OBJECTIVES["wasserstein"].critic
    for place in torch.linspace(-3, 3, 13):
        for critic in (lambda u, a=place: (u - a).abs(), lambda u, a=place: -(u - a).abs(), lambda u: u):
            assert -loss(critic(real), critic(fake)) <= distance + 1e-5
    # the best one: slope +1 where more fake than real mass lies below, else -1
    grid = torch.cat([real, fake]).sort().values
    below = torch.searchsorted(fake, grid[:-1], right=True) - torch.searchsorted(real, grid[:-1], right=True)
    potential = torch.cat([torch.zeros(1), (below.sign() * grid.diff()).cumsum(0)])
    scores = [potential[torch.searchsorted(grid, points)] for points in (real, fake)]
    assert -loss(*scores).item() == pytest.approx(distance.item(), abs=1e-4)
    torch.testing.assert_close(OBJECTIVES["wasserstein"].generator(scores[1]), -scores[1].mean())


# --- penalties ------------------------------------------------------------------------------------


def with_linear_critic(objective: str) -> GAN:
    """Return a game in two standard columns with the critic 3 u_0 - 4 u_1 and a constant generator."""
    critic, generator = nn.Linear(2, 1), nn.Linear(1, 2)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, -4.0]]))
        critic.bias.fill_(0.25)
        generator.weight.zero_()
        generator.bias.copy_(torch.tensor([1.0, 1.0]))
    return GAN(Vectors.standard(2), generator, critic, 1, objective)


def test_the_penalty_of_a_linear_critic_is_that_by_hand(generator) -> None:
    x = torch.randn(6, 2, generator=generator)
    for name, penalty in (("wasserstein", 10 * (5 - 1) ** 2), ("nonsaturating", 5**2)):  # |(3, -4)| = 5
        model = with_linear_critic(name)
        real, fake = model.critic(x), model.critic(torch.ones(6, 2))
        expected = OBJECTIVES[name].critic(real, fake) + penalty
        torch.testing.assert_close(model.critic_loss(Batch(x)), expected)
        model.penalty = 0.0
        torch.testing.assert_close(model.critic_loss(Batch(x)), expected - penalty)


def test_slopes_are_taken_where_the_source_says() -> None:
    places: list[Tensor] = []

    class Watched(nn.Linear):
        def forward(self, u: Tensor) -> Tensor:
            if u.requires_grad:
                places.append(u.detach())
            return super().forward(u)

    x = torch.tensor([[5.0, 1.0], [9.0, 1.0]])
    for name in OBJECTIVES:
        model = with_linear_critic(name)
        model.critic_net = Watched(2, 1)
        places.clear()
        model.critic_loss(Batch(x))
        (place,) = places
        assert torch.equal(place[:, 1], torch.ones(2))  # real and generated agree there
        if name == "nonsaturating":
            assert torch.equal(place, x)
        else:
            share = (place[:, 0] - 1) / (x[:, 0] - 1)  # on the way from 1, each at its own place
            assert ((share > 0) & (share < 1)).all()
            assert share[0] != share[1]


def test_slopes_are_the_norms_of_the_gradient() -> None:
    u = torch.tensor([[[1.0, 2.0]], [[0.5, -1.0]]])
    # f = u_0^2 + 3 u_1: gradient (2 u_0, 3)
    found = slopes(lambda v: v[:, 0, 0] ** 2 + 3 * v[:, 0, 1], u)
    torch.testing.assert_close(found, torch.tensor([math.sqrt(13), math.sqrt(10)]))


# --- the players ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_every_player_moves_its_own_parameters_and_no_others(
    kind: str, objective: str, architecture: str
) -> None:
    if architecture == "conv" and kind == "vectors":
        with pytest.raises(DomainError, match="pictures"):
            build(kind, architecture=architecture)
        return
    model = build(kind, objective=objective, architecture=architecture)
    critic, generator = model.players()
    owned = [{id(parameter) for parameter in player.parameters} for player in (critic, generator)]
    assert not owned[0] & owned[1]
    assert owned[0] | owned[1] == {id(parameter) for parameter in model.parameters()}
    assert (critic.steps, generator.steps) == ((1, 1) if objective == "nonsaturating" else (5, 1))
    for player, other in ((critic, generator), (generator, critic)):
        model.zero_grad()
        player.loss(Batch(tiny(kind).train.x)).backward()
        moved = [bool(parameter.grad.abs().sum() > 0) for parameter in player.parameters]
        # a critic that is only compared with itself has no use for its last bias
        assert all(moved[:-1] if objective == "wasserstein" and player is critic else moved)
        assert all(parameter.grad is None for parameter in other.parameters)


def test_the_generators_loss_is_the_critics_opinion_of_its_samples() -> None:
    model = build("vectors")
    torch.manual_seed(3)
    loss = model.generator_loss(Batch(tiny("vectors").train.x[:10]))
    torch.manual_seed(3)
    scores = model.critic_net(model.generated(torch.randn(10, 3))).squeeze(1)
    torch.testing.assert_close(loss, nn.functional.softplus(-scores).mean())


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_a_turn_can_be_profiled(objective: str) -> None:
    # The counter hooks every module's input, which must not be the leaf that slopes are taken at.
    for player in build("vectors", objective=objective).players():
        with FlopCounterMode(display=False) as counter:
            player.loss(Batch(tiny("vectors").train.x))
        assert counter.get_total_flops() > 0


# --- raw in, raw out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_raw_and_repeat_under_one_generator(kind: str, moved) -> None:
    model = moved(build(kind))
    draws = [model.sample(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    model.domain.validated(draws[0])
    assert draws[0].dtype == tiny(kind).train.x.dtype
    z = torch.randn(5, 3)
    torch.testing.assert_close(model.decode(z)[2:4], model.decode(z[2:4]))


def test_a_generator_can_reach_every_level_and_no_other() -> None:
    model = GAN(Images(1, 1, 1, 4), nn.Identity(), nn.Flatten(), latent=1)
    assert model.decode(torch.linspace(-9, 9, 101)[:, None]).unique().tolist() == [0, 1, 2, 3]
    # tanh(z) in [-1, 1] is cut into four equal cells: -0.5, 0 and 0.5 part them
    edges = torch.atanh(torch.tensor([-0.51, -0.49, -0.01, 0.01, 0.49, 0.51]))[:, None]
    assert model.decode(edges).flatten().tolist() == [0, 1, 1, 2, 2, 3]


def test_real_levels_fill_their_cells_and_come_back() -> None:
    model = build("images")
    x = tiny("images").train.x
    u = model.coordinates(x, noisy=True)
    assert torch.equal(model.domain.quantize((u + 1) / 2), x)
    assert len(u.unique()) > 1000
    assert model.coordinates(x).unique().tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_real_columns_are_standardised_and_come_back(moved) -> None:
    x = tiny("vectors").train.x
    model = build("vectors")
    u = model.coordinates(x, noisy=True)
    assert torch.equal(u, model.coordinates(x))
    assert u.mean(0).abs().max() < 0.3
    torch.testing.assert_close(model.domain.quantize(u), x)


def test_a_score_belongs_to_its_row(moved) -> None:
    for architecture in ("dense", "conv"):
        model = moved(build("images", architecture=architecture))
        x = tiny("images").test.x
        torch.testing.assert_close(model.critic(x)[4:9].flip(0), model.critic(x[4:9].flip(0)))


def test_the_type_of_numbers_follows_the_parameters() -> None:
    model = build("images").double()
    assert model.critic(model.sample(3)).dtype == torch.float64
    assert all(
        player.loss(Batch(tiny("images").train.x)).dtype == torch.float64 for player in model.players()
    )


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_mean_of_a_normal_is_learned(objective: str) -> None:
    domain = Vectors.standard(2)
    model = GAN.for_data(Signature(domain), objective=objective, latent=2, hidden=(16,))
    truth = torch.tensor([1.0, -0.5])
    players = model.players()
    options = model.recommended["optimizer_options"]
    steppers = [torch.optim.Adam(p.parameters, lr=1e-2, fused=True, **options) for p in players]
    before = (model.sample(1000).mean(0) - truth).norm().item()
    for _ in range(60):
        for player, stepper in zip(players, steppers, strict=True):
            for _ in range(player.steps):
                model.zero_grad()
                player.loss(Batch(truth + 0.3 * torch.randn(64, 2))).backward()
                stepper.step()
    after = (model.sample(1000).mean(0) - truth).norm().item()
    assert after < 0.35 < before


def test_each_objective_recommends_how_to_train_it() -> None:
    for objective in OBJECTIVES:
        betas = build(objective=objective).recommended["optimizer_options"]["betas"]
        assert betas[0] == 0.5


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["categories", "table", "tokens", "counts"])
def test_a_domain_without_order_is_declined_with_the_way_out(kind: str) -> None:
    hint = r"data.vectors\(\)" if kind in ("categories", "table") else "Vectors"
    with pytest.raises(DomainError, match=hint):
        build(kind)


def test_wrong_options_and_shapes_are_named() -> None:
    with pytest.raises(OptionError, match="wasserstein"):
        build(objective="wassertein")
    with pytest.raises(OptionError, match="latent"):
        GAN.for_data(Signature(Bits((4,))), latent=0)
    with pytest.raises(OptionError, match="penalty"):
        build(penalty=-1.0)
    with pytest.raises(ShapeError, match="4x4"):
        build().critic(torch.zeros(2, 1, 3, 4, dtype=torch.uint8))
