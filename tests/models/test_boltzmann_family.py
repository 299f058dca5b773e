"""What all Boltzmann machines share: log Z between two bounds, the chain, and rounding to half the bits."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.catalog import build
from leadline.core import Batch, Bits, Images, OptionError, Signature, Vectors
from leadline.inference.chains.finite import stationary
from leadline.laws.chain import chain_is_stationary
from leadline.laws.subject import Subject
from leadline.laws.verdicts import Broken, NotApplicable
from leadline.models.boltzmann import partition
from leadline.models.boltzmann.dbm import DBM
from leadline.models.boltzmann.dbn import DBN
from leadline.models.boltzmann.energy import Energy
from leadline.models.boltzmann.machine import Machine
from leadline.models.boltzmann.rbm import RBM
from leadline.nets.boltzmann import BernoulliLayer, BoltzmannLayer
from tests.tiny import moved, tiny


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def machines() -> dict[str, Machine]:
    return {
        "rbm": moved(RBM(Bits((6,)), 4)),
        "wide rbm": moved(RBM(Bits((4,)), 6)),
        "gaussian rbm": moved(RBM(Vectors.standard(4), 3), 0.6),
        "dbn": moved(DBN(Bits((6,)), (5, 4))),
        "dbm": moved(DBM(Bits((6,)), (5, 4))),
    }


@pytest.mark.parametrize("name", machines())
def test_the_bounds_enclose_log_z_and_close_as_temperatures_grow(name: str) -> None:
    model = machines()[name]
    truth, widths = model.log_partition("exact").value, []
    for count in (5, 100):
        below, above = (
            model.log_partition(method, chains=2000, temperatures=count) for method in ("lower", "upper")
        )
        assert below.stderr is not None
        assert above.stderr is not None
        assert (below.kind, above.kind) == ("lower bound", "upper bound")
        assert below.value < truth + 4 * below.stderr
        assert above.value > truth - 4 * above.stderr
        widths.append(above.value - below.value)
        if count == 5:  # so few that the bounds are apart by more than their noise
            assert below.value < truth - 2 * below.stderr
            assert above.value > truth + 2 * above.stderr
    assert widths[1] < widths[0] / 3
    found = model.log_partition("ais", chains=2000, temperatures=100)
    assert found.kind == "estimate"
    assert abs(found.value - truth) < 4 * (found.stderr or 0.0)
    assert "exact draws" in found.protocol


def test_the_gap_between_mean_and_log_mean_is_not_an_error_of_sign() -> None:
    model = machines()["rbm"]
    truth = model.log_partition("exact").value
    # the same run: the mean of log w lies below the log of the mean of w
    lower = model.log_partition("lower", chains=500, temperatures=5)
    estimate = model.log_partition("ais", chains=500, temperatures=5)
    assert lower.value < estimate.value
    assert abs(estimate.value - truth) < abs(lower.value - truth)


def test_without_exact_draws_the_upper_end_is_an_estimate_and_says_where_it_began() -> None:
    for persistent, word in ((True, "persistent chains"), (False, "forward particles")):
        model = RBM(Bits((22,)), 21, persistent=persistent, chains=7)
        found = model.log_partition("upper", chains=10, temperatures=10)
        assert found.kind == "estimate"
        assert word in found.protocol
        assert "1000 Gibbs steps" in found.protocol
        # nearly independent coins: log Z is 43 ln 2
        assert found.value == pytest.approx(43 * math.log(2), abs=0.5)
    assert model.density.kind == "estimate"
    assert "effective sample size" in model.density.protocol


def test_temperatures_are_doubled_until_the_effective_sample_size_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    easy, hard = RBM(Bits((22,)), 21), moved(RBM(Bits((60,)), 40, persistent=False), 2.0)

    def told(model: RBM, ladder: tuple[int, int]) -> tuple[int, int]:
        monkeypatch.setattr(partition, "_LADDER", ladder)
        text = model.log_partition("ais", chains=50, seed=ladder[1]).protocol
        found = re.search(r"(\d+) temperatures, effective sample size (\d+)", text)
        assert found
        return int(found[1]), int(found[2])

    assert told(easy, (4, 64))[0] == 4
    count, size = told(hard, (2, 1024))
    assert 2 < count < 1024
    assert size >= 10
    assert told(hard, (2, 2))[1] < 10
    assert told(hard, (2, 3))[0] == 3


def test_a_small_effective_sample_size_is_called_so_and_the_error_covers_the_bounds() -> None:
    model = moved(RBM(Bits((60,)), 40, persistent=False), 2.0)
    found = model.log_partition("ais", chains=50, temperatures=2)
    below, above = (model.log_partition(end, chains=50, temperatures=2) for end in ("lower", "upper"))  # type: ignore[arg-type]
    assert "too small to be trusted" in found.protocol
    assert found.stderr is not None
    assert found.stderr >= (above.value - below.value) / 2 - 1e-9
    with pytest.raises(OptionError, match="temperatures"):
        model.log_partition("ais", temperatures=1)


def test_particles_that_all_miss_a_mode_are_found_out_by_chains_that_stand_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # two modes: all units off, where coins fall to, and all 40 + 40 on, behind a wall: of log-weight
    # 40 * 40 / 2 - 5 * 40 - 14 * 40 = 40
    model = RBM(Bits((40,)), 40, chains=20).double()
    with torch.no_grad():
        model.layer.chain.zero_()
        model.layer.weights.fill_(0.5)
        model.layer.visible_bias.fill_(-5.0)
        model.layer.hidden_bias.fill_(-14.0)
    blind = model.log_partition("ais", chains=20, temperatures=200)
    assert blind.value < 1
    assert "trusted" not in blind.protocol  # as well as can be known
    model.layer.chain.fill_(1.0)
    # the base of the path is where the chains stand, which is enough
    on = torch.arange(41, dtype=torch.float64)
    ways = math.lgamma(41) - torch.lgamma(on + 1) - torch.lgamma(41 - on)
    each = (ways - 5 * on)[:, None] + ways - 14 * on + 0.5 * on[:, None] * on
    told = model.log_partition("ais", chains=20, temperatures=200, seed=1)
    assert abs(told.value - float(each.flatten().logsumexp(0))) < 4 * (told.stderr or 0.0)
    # a base that does not know of them
    monkeypatch.setattr(partition, "_base", lambda layer, chains, generator: layer.visible_bias)
    told = model.log_partition("ais", chains=20, temperatures=200, seed=2)
    assert "bounds too far apart" in told.protocol
    assert (told.interval or (0.0, 0.0))[1] > 39


def test_what_was_found_is_remembered_until_a_parameter_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = machines()["rbm"], []
    kept = BernoulliLayer.exact_draws

    def counted(self: BernoulliLayer, *arguments: Any) -> Tensor:
        calls.append(1)
        return kept(self, *arguments)

    monkeypatch.setattr(BernoulliLayer, "exact_draws", counted)
    values = [model.log_partition(end, temperatures=10).value for end in ("lower", "upper", "ais", "lower")]  # type: ignore[arg-type]
    assert len(calls) == 1
    assert values[0] == values[3]
    model.two_layers().weights.data.add_(0.1)
    assert model.log_partition("lower", temperatures=10).value != values[0]


def kernel(model: Machine) -> tuple[Tensor, Tensor]:
    """Return the transition matrix of the chain by p(h | v) p(v' | h), and its density."""
    layer = model.two_layers()
    v, h = states(layer.weights.shape[0]), states(layer.weights.shape[1])
    joint = (v @ layer.visible_bias)[:, None] + h @ layer.hidden_bias + v @ layer.weights @ h.T
    return (joint.softmax(1) @ joint.softmax(0).T).detach(), joint.logsumexp(1).softmax(0).detach()


@pytest.mark.parametrize("name", ["rbm", "wide rbm", "dbn", "dbm"])
def test_a_step_has_the_transition_matrix_whose_stationary_law_is_the_density(name: str) -> None:
    model = machines()[name]
    matrix, pi = kernel(model)
    assert torch.allclose(stationary(matrix), pi, atol=1e-10)
    v = states(model.chain_domain.dims)
    log_density = model.log_density(v).detach()
    assert torch.allclose(log_density.softmax(0), pi, atol=1e-10)
    n, start = 20_000, 3
    after = model.step(v[[start]].repeat(n, 1), torch.Generator().manual_seed(0))
    assert after.dtype == torch.uint8
    number = (after.double() @ (2.0 ** torch.arange(v.shape[1] - 1, -1, -1).double())).long()
    counts = torch.bincount(number, minlength=len(v)) / n
    p = matrix[start]
    assert bool(((counts - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-4).all())


@pytest.mark.parametrize("name", ["rbm", "dbn", "dbm"])
def test_verify_reaches_the_chain_and_catches_a_planted_fault(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, honest = Bits((8, 8)), BernoulliLayer.draw
    model = build(name, Signature(domain)).eval()
    with torch.no_grad():
        x = model.sample(2, steps=1)  # type: ignore[operator]
        subject = Subject(model, domain, None, x, 0, 4096)
        assert "hidden units" in chain_is_stationary(subject)
        monkeypatch.setattr(
            BernoulliLayer, "draw", lambda self, at, source=None: honest(self, 0.7 * at, source)
        )
        with pytest.raises(Broken, match="chi-square"):
            chain_is_stationary(subject)


def test_a_chain_of_real_units_steps_over_them_and_says_that_it_cannot_be_listed() -> None:
    model = RBM(Vectors.standard(2), 3)
    assert model.step(torch.zeros(5, 2)).shape == (5, 2)
    subject = Subject(model.eval(), model.domain, None, torch.zeros(2, 2), 0, 100)
    with torch.no_grad(), pytest.raises(NotApplicable, match="listed"):
        chain_is_stationary(subject)
    assert RBM(Images(1, 2, 2, 4), 2).chain_domain.shape == (4,)


@pytest.mark.parametrize(
    ("kind", "sort", "options"),
    [
        (RBM, "bits", {"hidden": 4}),
        (RBM, "bits", {"hidden": 4, "persistent": True}),
        (RBM, "vectors", {"hidden": 4}),
        (RBM, "vectors", {"hidden": 4, "scale": "unit"}),
        (DBN, "bits", {"hidden": (5, 4)}),
        (DBM, "bits", {"hidden": (5, 4)}),
        (Energy, "vectors", {"hidden": (8,)}),
    ],
)
def test_half_precision_rounds_the_gradient_and_nothing_else(
    kind: Any, sort: str, options: dict[str, Any]
) -> None:
    data = tiny(sort)
    learners: list[nn.Module] = [kind.for_data(data, **options)]
    learners += [stage for stage in learners[0].stages() if hasattr(stage, "loss")][:1]  # type: ignore[operator]
    for model in learners:
        start = {key: value.clone() for key, value in model.state_dict().items()}
        gradients = []
        for enabled in (False, True):
            model.load_state_dict(start)
            torch.manual_seed(0)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = model.loss(Batch(data.train.x))  # type: ignore[operator]
            found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            assert loss.dtype == torch.float32
            gradients.append(torch.cat([part.flatten() for part in found if part is not None]))
        full, half = gradients
        # a rounded logit may flip a draw: one of 120 rows
        assert float((half - full).norm()) < 0.1 * float(full.norm()) + 0.02


def test_draws_under_autocast_are_not_those_of_eight_bits() -> None:
    layer: BoltzmannLayer = BernoulliLayer(2, 2)
    with torch.no_grad():
        layer.weights.zero_()
        layer.visible_bias.fill_(-9.0)  # p = 1.2e-4; a bfloat16 uniform is zero once in 256 draws
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        x = layer.chain_end(layer.inputs(layer.start(50_000)), 1)
    assert float(x.mean()) < 5e-4


@pytest.mark.parametrize(
    ("visible", "hidden", "most"), [(64, 128, 4000), (784, 500, 3061), (784, 2000, 1000)]
)
def test_large_machines_are_given_fewer_temperatures_but_never_below_the_least(
    visible: int, hidden: int, most: int
) -> None:
    layer = RBM(Bits((visible,)), hidden).two_layers()
    path = partition._path(layer, 2, torch.Generator().manual_seed(0))
    assert path.temperatures == (1000, most)


@pytest.mark.parametrize("name", ["rbm", "dbn", "dbm", "energy"])
def test_a_method_that_is_none_and_numbers_out_of_range_are_refused(name: str) -> None:
    data = tiny("vectors" if name == "energy" else "bits")
    model: Any = build(name, data)
    with pytest.raises(OptionError, match=r'unknown method "exat" \(did you mean "exact"'):
        model.log_partition("exat")
    with pytest.raises(OptionError, match="chains must be at least 1, got 0"):
        model.log_partition("ais", chains=0)
    if name != "energy":
        with pytest.raises(OptionError, match="steps must be at least 1, got -1"):
            model.sample(2, steps=-1)
