"""The mean of several models: its arithmetic, learning together, and runs that are joined."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leadline as ll
from leadline.cli import main
from leadline.comparison import Comparison
from leadline.core import Batch, DataError, DomainError, LeadlineError, OptionError, RunError, verbs_of
from leadline.models.supervised.ensemble import Ensemble
from leadline.training import Run, ensemble, fit, open_run
from tests.tiny import tiny


class Told(nn.Module):
    """Predicts what it is told, with a weight to follow."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def predict(self, x: Tensor) -> Tensor:
        return self.rows.expand(len(x), -1)


def test_the_probability_is_the_mean_of_the_members_probabilities() -> None:
    data = tiny("vectors")
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
    model = Ensemble(data.domain, data.labels, [Told(row.log()[None]) for row in p])
    told = model.predict(data.test.x[:2]).exp()
    # the first is (0.7 + 0.1 + 1) / 3 by hand, and so on
    torch.testing.assert_close(told, torch.tensor([[1.8, 0.4, 0.8]]).expand(2, -1) / 3)


def test_certain_members_do_not_overflow() -> None:
    data = tiny("vectors")
    rows = torch.tensor([[0.0, -2000.0, -3000.0]])
    model = Ensemble(data.domain, data.labels, [Told(rows), Told(rows)])
    torch.testing.assert_close(model.predict(data.test.x[:1]), rows)


def test_targets_are_predicted_by_the_mean_of_means_and_judged_in_their_scale() -> None:
    data = tiny("targets")
    model = Ensemble(data.domain, data.labels, [Told(torch.tensor([[v]])) for v in (1.0, 2.0, 6.0)])
    assert model.predict(data.test.x[:1]).tolist() == [[3.0]]
    scale = data.labels.scale[0]
    expected = 0.5 * ((data.test.y - 3.0) / scale).square().mean()
    torch.testing.assert_close(model.loss(Batch(data.test.x, data.test.y)), expected)


def test_codes_stand_beside_each_other_and_are_missing_where_one_member_has_none() -> None:
    data = tiny("vectors")
    both = ll.build("ensemble", data, members=(("mlp", {"hidden": (8,)}), ("mlp", {"hidden": (5,)})))
    x = data.test.x
    codes = both.encode(x)
    assert torch.equal(codes, torch.cat([both.members[0].encode(x), both.members[1].encode(x)], 1))
    assert verbs_of(both) == ("predict", "encode")
    assert verbs_of(ll.build("ensemble", data, member="linear")) == ("predict",)


def test_members_learn_as_each_would_alone() -> None:
    data = tiny("vectors")
    torch.manual_seed(5)
    together = ll.build("ensemble", data, member="mlp", size=2, options={"hidden": (8,)})
    alone = [ll.build("mlp", data, hidden=(8,)) for _ in range(2)]
    for one, member in zip(alone, together.members, strict=True):
        one.load_state_dict(member.state_dict())
    assert not torch.equal(*(member.net[0].weight for member in together.members))
    settings: dict[str, Any] = {
        "steps": 9, "batch_size": 120, "clip": 0.1, "out": False, "progress": False, "select": "last",
    }  # fmt: skip
    run = fit(together, data, **settings)
    for number, (one, member) in enumerate(zip(alone, together.members, strict=True), 1):
        own = fit(one, data, **settings)
        for mine, theirs in zip(one.parameters(), member.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)
        assert run.metrics[-1][f"member {number}"] == pytest.approx(own.metrics[-1]["loss"], rel=1e-5)
    assert {"valid", "accuracy"} <= set(run.metrics[-1])


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    data = ll.load("digits", limit=200)
    names = (("mlp", {"hidden": (12,)}), ("linear", {}), ("convnet", {"channels": (4,), "hidden": 8}))
    return [
        fit(ll.build(name, data, **options), data, epochs=1, out=tmp_path / name, progress=False)
        for name, options in names
    ]


def test_joined_runs_open_and_report_without_them(runs: list[Run], tmp_path: Path) -> None:
    data = runs[0].load_data()
    expected = torch.stack([run.model.predict(data.test.x) for run in runs]).exp().mean(0)
    assert main(["ensemble", *(str(run.path) for run in runs), "--out", str(tmp_path / "all")]) == 0
    for run in runs:
        shutil.rmtree(run.path)
    joined = ll.open(tmp_path / "all")
    torch.testing.assert_close(joined.model.predict(data.test.x).exp(), expected)
    assert verbs_of(joined.model) == ("predict",)
    assert joined.steps == sum(run.steps for run in runs)
    assert joined.load_data().fingerprint == data.fingerprint
    page = Path(ll.report(joined, tmp_path / "page.html")).read_text(encoding="utf-8")
    for words in ("member 1 (mlp)", "member 2 (linear)", "member 3 (convnet)", "leadline ensemble"):
        assert words in page
    with pytest.raises(RunError, match="cannot go on"):
        fit(joined.model, data, out=tmp_path / "all", resume=True, progress=False)
    with pytest.raises(RunError, match="already holds a run"):
        ensemble([joined, joined], out=tmp_path / "all")
    again = ensemble([joined, joined], out=False)  # an ensemble of ensembles
    torch.testing.assert_close(again.model.predict(data.test.x).exp(), expected)


def test_a_run_of_members_trained_together_is_told_again_in_full(tmp_path: Path) -> None:
    data = tiny("images")
    options = {"channels": (4,), "hidden": 8}
    model = ll.build("ensemble", data, member="convnet", size=2, options=options)
    run = fit(model, data, steps=2, out=tmp_path / "r", progress=False)
    opened = open_run(tmp_path / "r")
    assert torch.equal(run.model.predict(data.test.x), opened.model.predict(data.test.x))
    assert opened.options == {"member": "convnet", "size": 2, "options": {"channels": [4], "hidden": 8}}


def test_a_comparison_has_a_line_for_each_member(tmp_path: Path) -> None:
    data = tiny("vectors")
    table = ll.compare(
        data, "classification", ["linear", "ensemble"], steps=5, jobs=1, out=tmp_path, progress=False,
        options={"ensemble": {"size": 2, "member": "linear"}},
    )  # fmt: skip
    for found in (table, Comparison.load(tmp_path)):
        lines = found.tables["classification"]
        assert {"ensemble: member 1 (linear)", "ensemble: member 2 (linear)"} <= set(lines["model"])
        assert lines.set_index("model")["rank"].notna().sum() == 2
    assert Path(ll.report(table, tmp_path / "page.html")).stat().st_size > 0


def test_other_data_other_models_and_too_few_are_refused(runs: list[Run], tmp_path: Path) -> None:
    data, iris = ll.load("digits", limit=200), ll.load("iris")
    other = fit(ll.build("linear", iris), iris, steps=2, out=False, progress=False)
    groups = fit(ll.build("kmeans", data), data, steps=2, out=False, progress=False)
    with pytest.raises(DomainError, match="join runs of the same data"):
        ensemble([runs[0], other], out=False)
    with pytest.raises(DomainError, match="cannot predict"):
        ensemble([runs[0], groups], out=False)
    with pytest.raises(OptionError, match="two runs or more"):
        ensemble([runs[0]], out=False)
    with pytest.raises(OptionError, match="two runs or more"):
        ensemble(str(runs[0].path), out=False)
    with pytest.raises(RunError, match="no run in"):
        ensemble([runs[0], tmp_path / "nothing"], out=False)
    runs[1].in_catalog = False
    with pytest.raises(OptionError, match="your own linear"):
        ensemble(runs[:2], out=False)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"member": "convnett"}, OptionError, 'did you mean "convnet"'),
        ({"member": "kmeans"}, DomainError, "members that predict"),
        ({"size": 0}, OptionError, "at least 1"),
        ({"size": 2.5}, OptionError, "whole number"),
        ({"options": {"hiden": (3,)}}, OptionError, 'did you mean "hidden"'),
        ({"options": [3]}, OptionError, "must be a mapping"),
        ({"members": ("runs/a", "runs/b")}, OptionError, "joined by ll.ensemble"),
        ({"members": (("mlp",),)}, OptionError, "pairs of a name and options"),
        ({"members": (("mlp", 3),)}, OptionError, "must be a mapping"),
        ({"build": 3}, OptionError, "unknown option of ensemble"),
    ],
)
def test_a_wrong_option_gets_one_line(options: dict[str, Any], kind: type[LeadlineError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        ll.build("ensemble", tiny("vectors"), **options)
    assert "\n" not in str(caught.value)


def test_no_member_no_labels_and_members_that_sweep_are_told() -> None:
    data = tiny("vectors")
    with pytest.raises(OptionError, match="at least one member"):
        Ensemble(data.domain, data.labels, [])
    with pytest.raises(LeadlineError, match="has no predict"):
        Ensemble(data.domain, data.labels, [nn.Linear(1, 1)])
    with pytest.raises(DataError, match="this batch has none"):
        ll.build("ensemble", data).loss(Batch(data.test.x))
    with pytest.raises(LeadlineError, match="train each alone"):
        fit(Ensemble(data.domain, data.labels, [_Sweeping()]), data, steps=1, out=False, progress=False)


class _Sweeping(Told):
    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 3))

    def sweep(self, x: Tensor) -> float:
        return 0.0
