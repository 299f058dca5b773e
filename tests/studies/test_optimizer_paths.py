"""Paths on named functions: rates that are known, noise, pictures, wrong input; and the edge of stability."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from leadline.cli import main
from leadline.core import DomainError, OptionError
from leadline.studies import Finding, StudyError, edge_of_stability, optimizer_paths
from leadline.studies.descent import path_of, quadratic_steps, steps_until, tuned
from leadline.studies.functions import FUNCTIONS
from leadline.studies.optimizer_paths import OPTIMIZERS
from leadline.studies.path_pictures import animated
from tests.tiny import tiny

START = torch.tensor([[1.0, 1.0]]).double()
STUDIED = sys.modules["leadline.studies.optimizer_paths"]
FEW = (10.0, 100.0)  # of KAPPAS, where all descents are short


@pytest.fixture(scope="module")
def found() -> Finding:
    return optimizer_paths(steps=150)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_is_what_its_formula_says_and_flat_at_its_point(name: str) -> None:
    function = FUNCTIONS[name]
    rule = function.formula.replace("^", "**").replace(") (", ") * (")
    for left, right in (("100 ", "100 * "), ("3 x", "3 * x"), ("x y", "x * y")):
        rule = rule.replace(left, right)
    for x, y in ((0.3, -0.7), (1.5, 2.0)):
        expected = eval(rule, {"x": x, "y": y})
        assert float(function.value(torch.tensor([x, y], dtype=torch.float64))) == pytest.approx(expected)
    point = torch.tensor(function.point, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(function.value(point), point)
    assert float(gradient.norm()) < 1e-12
    if function.least is not None:
        assert float(function.value(point.detach())) == pytest.approx(function.least)


def test_gradient_descent_loses_the_known_factor_at_every_step() -> None:
    weights = torch.tensor([1.0, 50.0]).double()
    path = path_of(
        lambda p: 0.5 * (weights * p.square()).sum(-1),
        START,
        "gd",
        steps=30,
        done=lambda p: p[:, 0] < 0,
        options={"lr": 1 / 50},
    )
    assert torch.allclose(path[:, 0, 0], (1 - 1 / 50) ** torch.arange(31).double(), rtol=1e-12)
    assert float(path[1, 0, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kappa", [10.0, 200.0])
def test_the_best_constants_give_the_best_rates(kappa: float) -> None:
    plain, heavy = (float(quadratic_steps(name, kappa, START, 1e-6, 5000)[0]) for name in ("gd", "momentum"))
    # Rates (kappa - 1) / (kappa + 1) and, but for a linear factor, (sqrt kappa - 1) / (sqrt kappa + 1).
    rate, root = (math.log((c + 1) / (c - 1)) for c in (kappa, math.sqrt(kappa)))
    assert plain == pytest.approx(math.log(1e6) / rate, abs=1.0)
    assert math.log(1e6) / root <= heavy <= 1.7 * math.log(1e6) / root


def test_a_path_ends_where_it_is_done_and_keeps_its_last_place() -> None:
    bowl = FUNCTIONS["bowl"].value
    both = torch.tensor([[1.0, 0.0], [4.0, 0.0]]).double()
    path = path_of(bowl, both, "gd", steps=50, done=lambda p: bowl(p) < 0.1, options={"lr": 0.1})
    first, second = steps_until(path, lambda p: bowl(p) < 0.1).tolist()
    assert first < second == len(path) - 1
    assert torch.equal(path[int(first), 0], path[-1, 0])


def test_a_rate_too_large_ends_far_off_and_is_not_chosen() -> None:
    bowl = FUNCTIONS["bowl"].value
    lr, path, taken = tuned(
        bowl, START, "gd", rates=(0.1, 3.0), steps=200, done=lambda p: bowl(p) < 1e-9, options={}
    )
    assert lr == 0.1
    assert float(taken[0]) < 60
    assert bool(torch.isfinite(path).all())


def test_the_claim_holds_and_every_optimiser_has_a_path(found: Finding) -> None:
    assert found.holds is True
    low, high = found.value.interval or (0.0, 0.0)
    assert 0.4 <= low < high <= 0.6
    assert list(found.table["optimizer"]) == list(OPTIMIZERS)
    by_name = found.table.set_index("optimizer")
    assert by_name["arrived"]["gd"] == 0
    assert by_name["x"]["gd"] == 0
    assert by_name["arrived"]["noisy_sgd"] > 0
    assert len(found.figure.axes) == 3
    json.dumps(found.to_json(), allow_nan=False)


def test_without_noise_nothing_leaves_the_saddle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STUDIED, "KAPPAS", FEW)
    monkeypatch.setattr(STUDIED, "ESCAPE", {"steps": 200, "lr": 0.05, "noise": 0.0})
    still = optimizer_paths(optimizers=("gd",), steps=5)
    assert still.holds is False
    assert "0 of 5 noises leave" in still.protocol


def test_a_broken_optimiser_is_caught_by_a_control(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = STUDIED.path_of
    monkeypatch.setattr(
        STUDIED, "path_of", lambda *arguments, **options: honest(*arguments, **options) * 0.99
    )
    with pytest.raises(StudyError, match="rate 1 - 1/kappa"):
        optimizer_paths()


def test_paths_move_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STUDIED, "KAPPAS", FEW)
    out = tmp_path / "paths.gif"
    arguments = ["study", "optimizer_paths", "bowl", "--set", "steps=5", "--set", "optimizers=gd"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert out.read_bytes()[:4] == b"GIF8"
    assert "Momentum" in capsys.readouterr().out
    wrong = str(tmp_path / "a.gif")
    assert main(["study", "stationary_point", "--set", "function=peano", "--out", wrong]) == 2
    assert "stationary_point is written as" in capsys.readouterr().err


def test_names_and_numbers_out_of_range_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(STUDIED, "passed", lambda controls: pytest.fail("the study began"))
    with pytest.raises(OptionError, match='did you mean "beale"'):
        optimizer_paths("beal")
    with pytest.raises(OptionError, match="optimizer of this study"):
        optimizer_paths(optimizers=("lbfgs",))
    for wrong in ({"steps": 0}, {"seeds": 1}, {"tolerance": 0.0}, {"noise": -1.0}, {"optimizers": ()}):
        with pytest.raises(OptionError, match="are needed"):
            optimizer_paths(**wrong)  # type: ignore[arg-type]


def test_a_moving_picture_is_a_page_or_a_gif(found: Finding) -> None:
    assert found.animate is not None
    assert b"<script" in animated(found, ".html", frames=2)
    with pytest.raises(OptionError, match=r"\.gif or \.html"):
        found.animate(found, ".mp4")


def test_sharpness_rises_to_the_edge_and_stays() -> None:
    data = tiny("images")
    found = edge_of_stability(data, rates=(0.8,), hidden=16, steps=800, probes=20, seeds=2)
    assert found.value.value > 0.85
    start = [curve[0] for _, curve in found.details["curves"]]
    assert start == pytest.approx([0.8, 0.8], rel=0.02)
    assert found.figure.axes
    json.dumps(found.to_json(), allow_nan=False)


def test_the_edge_needs_classes_and_stable_rates() -> None:
    with pytest.raises(DomainError, match="classes"):
        edge_of_stability(tiny("targets"))
    for wrong in ({"rates": ()}, {"rates": (1.5,)}, {"probes": 2}, {"steps": 3}, {"hidden": 0}):
        with pytest.raises(OptionError, match="are needed"):
            edge_of_stability(tiny("images"), **wrong)  # type: ignore[arg-type]
