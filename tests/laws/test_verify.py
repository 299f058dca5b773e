"""Every law against an honest model that it passes and a planted fault that it catches."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import (
    Bits,
    Categories,
    Classes,
    Counts,
    Density,
    Described,
    DomainError,
    Kind,
    OptionError,
    Recipe,
    Signature,
    Targets,
    Tokens,
    Vectors,
    VerbError,
)
from leadline.core.randomness import bernoulli, normal
from leadline.laws import LAWS, Law, Verification, verify
from tests.tiny import tiny

SUM = "probabilities sum to one"
FOLLOW = "samples follow log_prob"


class Coins(nn.Module):
    """Independent bits, the honest model of a discrete domain; a fault may be planted by name."""

    def __init__(self, domain: Bits, fault: str = "") -> None:
        super().__init__()
        self.domain, self.fault = domain, fault
        self.logit = nn.Parameter(torch.linspace(-1, 1, domain.dims))
        self.register_buffer("calls", torch.zeros(()))
        self.last = torch.zeros(0)

    @classmethod
    def for_data(cls, data: Described, *, fault: str = "") -> "Coins":
        return cls(data.domain.require(Bits), fault)

    def conditionals(self, x: Tensor) -> Tensor:
        bits = x.flatten(1).to(self.logit)
        each = -F.binary_cross_entropy_with_logits(
            self.logit.expand_as(bits), self.domain.checked(x).flatten(1).to(self.logit), reduction="none"
        )
        if self.fault == "peeks":
            # Telescoping: the sum is right, but dimension 1 reads dimension 2.
            peek = torch.zeros_like(each)
            peek[:, 1], peek[:, 2] = bits[:, 2], -bits[:, 2]
            each = each + peek
        return each

    def log_prob(self, x: Tensor) -> Tensor:
        out = self.conditionals(x).sum(1)
        wrong: dict[str, Callable[[], Tensor]] = {
            "unnormalised": lambda: out + 0.01,
            "batch": lambda: out - out.mean(),
            "order": lambda: out + 0.01 * torch.arange(len(out)),
            "noisy": lambda: out + 1e-3 * torch.randn(len(out)),
            "infinite": lambda: torch.where(x.flatten(1)[:, 0] == 1, -torch.inf, out),
            "column": lambda: out[:, None],
        }
        if self.fault == "counts calls":
            self.calls += 1
        if self.fault == "writes":
            x[:] = 0
        if self.fault == "trains":
            self.train()
        if self.fault == "crashes":
            raise IndexError("seven\nis not here")
        return wrong.get(self.fault, lambda: out)()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        if self.fault == "other samples":
            return bernoulli(torch.full((n, *self.domain.shape), 0.5), generator).byte()
        if self.fault == "global samples":
            generator = None
        if self.fault == "constant samples":
            generator = torch.Generator().manual_seed(0)
        out = bernoulli(self.logit.sigmoid().expand(n, -1), generator).view(n, *self.domain.shape)
        faults = {
            "float samples": out,
            "large samples": out.byte() + 1,
            "flat samples": out.byte().flatten(1),
        }
        return faults.get(self.fault, out.byte())


class Affine(nn.Module):
    """z = (x - m) / s with a rotation: the honest flow of real vectors."""

    def __init__(self, domain: Vectors, fault: str = "") -> None:
        super().__init__()
        self.domain, self.fault = domain, fault
        d = domain.dims
        self.weight = nn.Parameter(1.3 * torch.eye(d) + 0.7 * torch.ones(d, d).triu(1))
        self.shift = nn.Parameter(torch.linspace(-0.5, 0.5, d))

    @classmethod
    def for_data(cls, data: Described, *, fault: str = "") -> "Affine":
        return cls(data.domain.require(Vectors), fault)

    def encode(self, x: Tensor) -> Tensor:
        return (self.domain.features(x, self.weight) - self.shift) @ self.weight

    def decode(self, z: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.weight)
        if self.fault == "transposed":
            inverse = inverse.T
        return self.domain.quantize(z @ inverse + self.shift)

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        base = -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
        sign = -1 if self.fault == "sign" else 1
        return base + sign * torch.linalg.slogdet(self.weight).logabsdet + self.domain.log_volume

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.decode(normal((n, self.domain.dims), self.weight, generator))


class Softmax(nn.Module):
    """The honest classifier."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.weight = nn.Parameter(torch.linspace(-1, 1, 27).view(9, 3))
        self.norm = nn.BatchNorm1d(9)

    def predict(self, x: Tensor) -> Tensor:
        inputs = x.flatten(1).to(self.weight)
        scores = (self.norm(inputs) if self.fault == "batch" else inputs) @ self.weight
        if self.fault == "batch":
            scores = scores - scores.mean(0)
        return scores if self.fault == "raw scores" else scores.log_softmax(-1)


class Mixture(nn.Module):
    """One hidden bit: log_prob is an importance-weighted bound with the prior as its proposal."""

    density = Density("lower bound", "prior samples")

    def __init__(self, domain: Bits, fault: str = "") -> None:
        super().__init__()
        self.domain, self.fault = domain, fault
        self.logit = nn.Parameter(torch.linspace(-0.5, 0.6, 2 * domain.dims).view(2, -1))

    @classmethod
    def for_data(cls, data: Described) -> "Mixture":
        return cls(data.domain.require(Bits))

    def terms(self, x: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
        bits = x.flatten(1).to(self.logit)
        table = -F.binary_cross_entropy_with_logits(
            self.logit[:, None].expand(-1, *bits.shape), bits.expand(2, -1, -1), reduction="none"
        ).sum(-1)  # (2, n)
        source = generator or torch.Generator().manual_seed(3)
        pick = torch.randint(2, (samples,), generator=source)
        return table[pick]

    def log_prob(self, x: Tensor, samples: int = 64, generator: torch.Generator | None = None) -> Tensor:
        extra = {"too high": 0.2, "loose": -0.5, "wrong way": -0.1 * math.log(samples)}.get(self.fault, 0.0)
        return self.terms(x, samples, generator).logsumexp(0) - math.log(samples) + extra

    def elbo(self, x: Tensor) -> Tensor:
        return self.terms(x, 256, None).mean(0) + {"elbo above": 5, "loose": -1}.get(self.fault, 0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        pick = torch.randint(2, (n,), generator=generator)
        logit = self.logit.flip(1) if self.fault == "other samples" else self.logit
        return bernoulli(logit[pick].sigmoid(), generator).byte().view(n, *self.domain.shape)


def answer(found: Verification, name: str) -> Law:
    return next(law for law in found.laws if law.name == name)


def test_an_honest_discrete_model_breaks_no_law() -> None:
    found = verify(Coins(Bits((1, 3, 3))), tiny("bits"))
    assert not found.broken, str(found)
    assert {SUM, FOLLOW, "conditionals keep their order"} <= {law.name for law in found.obeyed}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_honest_flow_breaks_no_law(size: int) -> None:
    found = verify(Affine(Vectors.standard(size)))
    assert not found.broken, str(found)
    names = {SUM, FOLLOW, "decode inverts encode", "log-determinant is that of encode"}
    assert names <= {law.name for law in found.obeyed}


@pytest.mark.parametrize("size", [3, 20])
def test_an_honest_bound_breaks_no_law(size: int) -> None:
    found = verify(Mixture(Bits((size,))))
    assert not found.broken, str(found)
    assert {SUM, FOLLOW, "bounds lie below"} <= {law.name for law in found.obeyed}


def test_an_honest_classifier_breaks_no_law() -> None:
    found = verify(Softmax(), tiny("bits"))
    assert not found.broken, str(found)
    assert "predictions are normalised" in {law.name for law in found.obeyed}


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("unnormalised", SUM),
        ("other samples", FOLLOW),
        ("infinite", "log_prob is finite"),
        ("infinite", FOLLOW),
        ("column", "log_prob is finite"),
        ("batch", "log_prob scores each row alone"),
        ("order", "log_prob scores each row alone"),
        ("noisy", "log_prob repeats"),
        ("noisy", "verbs change nothing"),
        ("counts calls", "verbs change nothing"),
        ("writes", "verbs change nothing"),
        ("trains", "verbs change nothing"),
        ("peeks", "conditionals keep their order"),
        ("float samples", "sample gives raw samples"),
        ("large samples", "sample gives raw samples"),
        ("flat samples", "sample gives raw samples"),
        ("global samples", "sample repeats under one generator"),
        ("constant samples", "sample repeats under one generator"),
        ("crashes", "log_prob is finite"),
    ],
)
def test_a_planted_fault_of_a_discrete_model_is_caught(fault: str, law: str) -> None:
    found = answer(verify(Coins(Bits((1, 3, 3)), fault), tiny("bits")), law)
    assert found.verdict == "broken", found
    assert found.witness is not None


def test_a_conditional_that_reads_ahead_is_named() -> None:
    found = answer(verify(Coins(Bits((1, 3, 3)), "peeks"), tiny("bits")), "conditionals keep their order")
    assert "the conditional of dimension 1 reads dimension 2" in found.detail


def test_each_order_of_a_mixture_is_judged() -> None:
    class Chain(nn.Module):
        """Two bits, each order its own chain; the second order may read ahead."""

        domain = Bits((2,))
        orders = torch.tensor([[0, 1], [1, 0]])

        def __init__(self, ahead: float) -> None:
            super().__init__()
            self.ahead = ahead

        def conditionals(self, x: Tensor, component: int = 0) -> Tensor:
            bits = x.float()
            first, second = self.orders[component].tolist()
            logits = torch.zeros_like(bits)
            logits[:, second] = bits[:, first]
            if component == 1:
                logits[:, first] = self.ahead * bits[:, second]
            return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none")

        def log_prob(self, x: Tensor) -> Tensor:
            each = torch.stack([self.conditionals(x, c).sum(1) for c in range(2)])
            return each.logsumexp(0) - math.log(2)

    law = "conditionals keep their order"
    assert answer(verify(Chain(0.0)), law).verdict == "obeyed"
    assert answer(verify(Chain(1.0)), law).verdict == "broken"


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("sign", SUM),
        ("sign", "log-determinant is that of encode"),
        ("transposed", "decode inverts encode"),
        ("transposed", FOLLOW),
    ],
)
def test_a_planted_fault_of_a_flow_is_caught(fault: str, law: str) -> None:
    model = Affine(Vectors.standard(2), fault)
    model.invertible = True  # type: ignore[assignment]
    assert answer(verify(model), law).verdict == "broken"


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("too high", SUM),
        ("elbo above", "bounds lie below"),
        ("wrong way", "bounds lie below"),
        ("other samples", FOLLOW),
    ],
)
def test_a_planted_fault_of_a_bound_is_caught(fault: str, law: str) -> None:
    assert answer(verify(Mixture(Bits((4,)), fault)), law).verdict == "broken"


@pytest.mark.parametrize(("fault", "verdict"), [("", "obeyed"), ("wrong way", "broken")])
def test_more_samples_may_not_lower_a_bound_even_without_an_elbo(fault: str, verdict: str) -> None:
    class Sampled(Mixture):
        elbo = None  # type: ignore[assignment]

    model = Sampled(Bits((4,)), fault)
    model.logit.data *= 8  # one sample is far from many
    if fault:
        model.logit.data *= 0  # one sample is as good as many, were it not for the fault
    found = answer(verify(model), "bounds lie below")
    assert (found.verdict, "64 samples minus 1 sample" in found.detail) == (verdict, True)


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"), [(-0.1, 0.2, "obeyed"), (0.1, 0.2, "broken"), (-0.1, -0.2, "broken")]
)
def test_bounds_on_either_side_of_the_exact_value_are_told_apart(
    lower: float, upper: float, verdict: str
) -> None:
    class Enclosed(Coins):
        def exact_log_prob(self, x: Tensor) -> Tensor:
            return self.log_prob(x)

        def elbo(self, x: Tensor) -> Tensor:
            return self.log_prob(x) + lower

        def upper_bound(self, x: Tensor) -> Tensor:
            return self.log_prob(x) + upper

    found = answer(verify(Enclosed(Bits((4,)))), "bounds enclose the exact value")
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("fault", "law"),
    [("raw scores", "predictions are normalised"), ("batch", "predict answers each row alone")],
)
def test_a_planted_fault_of_a_classifier_is_caught(fault: str, law: str) -> None:
    assert answer(verify(Softmax(fault), tiny("bits")), law).verdict == "broken"


def test_a_loose_bound_is_not_compared_with_its_samples() -> None:
    found = verify(Mixture(Bits((3,)), "loose"))
    assert not found.broken
    assert "too loose" in answer(found, FOLLOW).detail


def test_a_model_without_an_inverse_claims_none() -> None:
    found = verify(Affine(Vectors.standard(2), "transposed"))
    assert answer(found, "decode inverts encode").verdict == "not applicable"


@pytest.mark.parametrize(
    ("width", "kind", "verdict"),
    [(1, "exact", "obeyed"), (2, "exact", "not applicable"), (1, "lower bound", "not applicable")],
)
def test_rows_that_come_back_claim_an_inverse_only_of_codes_as_large_and_an_exact_density(
    width: int, kind: Kind, verdict: str
) -> None:
    class Wide(Affine):
        density = Density(kind)

        def encode(self, x: Tensor) -> Tensor:
            return super().encode(x).repeat(1, width)

        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z[:, : self.domain.dims])

        def log_prob(self, x: Tensor) -> Tensor:
            z = super().encode(x)
            base = -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
            return base + torch.linalg.slogdet(self.weight).logabsdet + self.domain.log_volume

    assert answer(verify(Wide(Vectors.standard(2))), "decode inverts encode").verdict == verdict


def test_a_large_domain_is_judged_on_a_small_copy() -> None:
    found = answer(verify(Coins(Bits((30,)))), SUM)
    assert found.verdict == "obeyed"
    assert "copy over Bits(8)" in found.detail


def test_a_fault_shows_on_the_small_copy_built_from_the_options() -> None:
    model = Coins(Bits((30,)), "unnormalised")
    model.recipe = Recipe("coins", {"fault": "unnormalised"})  # type: ignore[assignment]
    assert answer(verify(model), SUM).verdict == "broken"


def test_a_state_that_is_not_whole_is_caught() -> None:
    model = Coins(Bits((4,)), "unnormalised")
    model.recipe = Recipe("coins", {})  # type: ignore[assignment]
    found = answer(verify(model), "state_dict holds the whole model")
    assert found.verdict == "broken"
    assert "log_prob" in found.detail


def test_options_that_do_not_fit_the_small_domain_are_halved() -> None:
    class Narrow(Affine):
        @classmethod
        def for_data(cls, data: Described, *, width: int = 9) -> "Narrow":
            if width > data.domain.dims:
                raise OptionError(f"width must be at most {data.domain.dims}")
            return cls(data.domain.require(Vectors))

    assert answer(verify(Narrow(Vectors.standard(9))), SUM).verdict == "obeyed"


def test_a_model_that_fits_no_small_domain_says_so() -> None:
    class Stubborn(Affine):
        @classmethod
        def for_data(cls, data: Described) -> "Stubborn":
            raise RuntimeError("nine columns or none")

    found = answer(verify(Stubborn(Vectors.standard(9))), SUM)
    assert found.verdict == "not applicable"
    assert "nine columns or none" in found.detail


def test_a_density_too_narrow_for_the_grid_is_not_judged() -> None:
    class Spike(nn.Module):
        domain = Vectors.standard(1)

        def __init__(self, centre: float) -> None:
            super().__init__()
            self.centre = centre

        def log_prob(self, x: Tensor) -> Tensor:
            return torch.distributions.Normal(self.centre, 5e-4).log_prob(x[:, 0])

    for centre in (0.0, 2.0):
        found = answer(verify(Spike(centre)), SUM)
        assert found.verdict == "not applicable"
        assert "too narrow" in found.detail


def test_mass_beyond_the_listed_counts_is_not_judged() -> None:
    class Rate(nn.Module):
        domain = Counts(("a",))

        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate = rate

        def log_prob(self, x: Tensor) -> Tensor:
            return torch.distributions.Poisson(self.rate).log_prob(x[:, 0].float())

    assert answer(verify(Rate(5.0)), SUM).verdict == "obeyed"
    assert answer(verify(Rate(40.0)), SUM).verdict == "not applicable"


def test_an_estimate_may_miss_one_by_its_standard_error() -> None:
    model = Coins(Bits((4,)), "unnormalised")
    model.density = Density("estimate", "guessed", 0.01)  # type: ignore[assignment]
    assert answer(verify(model), SUM).verdict == "obeyed"
    model.density = Density("estimate", "guessed", 0.001)  # type: ignore[assignment]
    assert answer(verify(model), SUM).verdict == "broken"


def test_an_honest_sampler_is_rarely_called_broken() -> None:
    model = Coins(Bits((6,)))
    verdicts = [answer(verify(model, seed=seed, samples=2000), FOLLOW).verdict for seed in range(40)]
    assert verdicts.count("broken") == 0


def test_verifying_leaves_no_trace() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), Coins(Bits((4,)), "counts calls"))
    model.log_prob = model[1].log_prob  # type: ignore[assignment]
    model.train()
    model[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    verify(model, Signature(Bits((4,))))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    assert not model[0].training
    assert torch.is_grad_enabled()


def test_the_same_seed_gives_the_same_answers() -> None:
    first, second = (str(verify(Coins(Bits((5,))), seed=3)) for _ in range(2))
    assert first == second


def test_an_exception_of_the_model_is_an_answer_in_one_line() -> None:
    found = answer(verify(Coins(Bits((4,)), "crashes")), "log_prob repeats")
    assert found.detail == "IndexError: seven"


def test_an_error_about_a_verb_or_domain_is_no_fault() -> None:
    class Unlabelled(nn.Module):
        def predict(self, x: Tensor) -> Tensor:
            raise VerbError("these data have no labels")

    found = verify(Unlabelled(), tiny("tokens"))
    assert not found.broken
    assert "no labels" in answer(found, "predict is finite").detail


def test_regression_means_have_one_column_a_target() -> None:
    class Line(nn.Module):
        def __init__(self, columns: int) -> None:
            super().__init__()
            self.columns = columns

        def predict(self, x: Tensor) -> Tensor:
            return x[:, :1].expand(-1, self.columns)

    labels = Targets(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    for columns, verdict in ((2, "obeyed"), (1, "broken")):
        found = verify(Line(columns), Signature(Vectors.standard(3), labels))
        assert answer(found, "predictions are normalised").verdict == verdict


@pytest.mark.parametrize("domain", [Categories((2, 3)), Tokens(("a", "b"), 3), Counts(("a", "b"))])
def test_random_rows_stand_in_where_there_are_no_data(domain: Categories | Tokens | Counts) -> None:
    class Echo(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            domain.validated(x)
            return x.float()

        def decode(self, z: Tensor) -> Tensor:
            return z.to(domain.dtype)

    found = verify(Echo(), Signature(domain, Classes(("a", "b"))))
    assert not found.broken
    assert "decode gives raw samples" in {law.name for law in found.obeyed}


def test_a_module_without_verbs_is_refused() -> None:
    with pytest.raises(VerbError, match="none of the verbs"):
        verify(nn.Linear(2, 2))


def test_a_model_without_a_domain_needs_data() -> None:
    with pytest.raises(OptionError, match="give verify"):
        verify(Softmax())


def test_data_of_another_domain_are_refused() -> None:
    with pytest.raises(DomainError, match="the model is for"):
        verify(Coins(Bits((4,))), tiny("bits"))


def test_a_number_of_samples_below_one_is_refused() -> None:
    with pytest.raises(OptionError, match="samples"):
        verify(Coins(Bits((4,))), samples=0)


def test_the_table_has_a_row_a_law_and_broken_ones_come_first() -> None:
    found = verify(Coins(Bits((1, 3, 3)), "unnormalised"), tiny("bits"))
    assert list(found.table.columns) == ["law", "verdict", "detail"]
    assert len(found.table) == len(LAWS)
    assert found.table["verdict"][0] == "broken"
    assert str(found).splitlines()[0].startswith("Coins on Bits(1x3x3): ")
    assert found.to_json()["laws"][1]["witness"]["sum"] == pytest.approx(math.exp(0.01), abs=1e-4)


class Pairs(nn.Module):
    """Two coupled bits and a third alone: a weight up to a constant, and a step of Gibbs sampling."""

    def __init__(self, fault: str = "", size: int = 3) -> None:
        super().__init__()
        self.domain, self.fault = Bits((size,)), fault
        self.coupling = nn.Parameter(torch.tensor(0.8))

    def log_density(self, x: Tensor) -> Tensor:
        s = 2 * x.to(self.coupling) - 1
        return self.coupling * s[:, 0] * s[:, 1] + 0.5 * s[:, 2] + 3.0

    def step(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        s = 2 * x.to(self.coupling) - 1
        pull = {"": self.coupling, "sign": -self.coupling, "weak": 0.7 * self.coupling}
        for bit, other in ((0, 1), (1, 0)):
            logit = 2 * pull.get(self.fault, self.coupling) * s[:, other]
            s[:, bit] = 2 * bernoulli(torch.sigmoid(logit), generator) - 1
        field = 0.0 if self.fault == "forgets a field" else 0.5
        s[:, 2] = 2 * bernoulli(torch.sigmoid(torch.full_like(s[:, 2], 2 * field)), generator) - 1
        if self.fault == "still":
            return x
        if self.fault == "leaves":
            return (s + 1).to(x.dtype)  # 0 and 2
        return ((s + 1) / 2).to(x.dtype)


CHAIN = "the chain keeps the density"


def test_a_chain_that_keeps_its_density_obeys_the_law_without_any_verb() -> None:
    found = verify(Pairs())
    assert answer(found, CHAIN).verdict == "obeyed", answer(found, CHAIN).detail
    assert not found.broken
    assert answer(verify(Coins(Bits((3,)))), CHAIN).verdict == "not applicable"


@pytest.mark.parametrize("fault", ["sign", "weak", "forgets a field", "still", "leaves"])
def test_a_chain_that_does_not_is_caught(fault: str) -> None:
    found = answer(verify(Pairs(fault)), CHAIN)
    assert found.verdict == "broken"
    assert found.detail


def test_a_chain_over_too_many_states_is_not_judged() -> None:
    found = answer(verify(Pairs(size=40)), CHAIN)
    assert found.verdict == "not applicable"
    assert "too large" in found.detail
