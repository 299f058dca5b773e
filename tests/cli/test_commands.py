"""Every command on small runs, and on what a user may get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import leadline as ll
from leadline.catalog import CATALOG, model_class, options_of
from leadline.cli import main
from leadline.cli.values import plain_values
from leadline.training import Run


def table(path: Path, rows: int = 60) -> Path:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, 2, generator=generator) * torch.tensor([1.0, 5.0]) + torch.tensor([0.0, 40.0])
    lines = ["a,b,kind"]
    lines += [f"{u:.6f},{v:.6f},{'hot' if u > 0 else 'cold'}" for u, v in x.tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a classifier of it, its components, and components of digits."""
    folder = tmp_path_factory.mktemp("cli")
    data = ll.load(table(folder / "rows.csv"), target="kind")
    torch.manual_seed(0)
    ll.fit(ll.build("linear", data), data, epochs=2, out=folder / "linear", progress=False)
    ll.fit(ll.build("pca", data, latent=1), data, out=folder / "pca", progress=False)
    digits = ll.load("digits", limit=120)
    ll.fit(ll.build("pca", digits, latent=3), digits, out=folder / "digits", progress=False)
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def failed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must be refused in one or two lines, and return what it says."""
    status = run(*words)
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") <= 2
    assert "Traceback" not in said.err
    return said.err


def document(capsys: pytest.CaptureFixture[str], *words: object) -> object:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_models_lists_the_catalog_and_the_options_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    told = document(capsys, "models", "pca")
    assert isinstance(told, dict)
    assert "latent" in [option["option"] for option in told["options"]]
    assert {"encode", "decode"} <= set(told["verbs"])
    assert run("models", "bayesian_network") == 0
    shown = capsys.readouterr().out
    assert "structure=auto  (a word)" in shown
    assert '"bdeu"' in shown


@pytest.mark.parametrize("name", CATALOG)
def test_every_option_of_a_model_says_what_it_means(name: str) -> None:
    kind = model_class(name)
    options = plain_values(options_of(name), kind.for_data, kind)  # type: ignore[attr-defined]
    assert [option["option"] for option in options if not option["meaning"]] == []


def test_every_option_of_the_data_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    options = document(capsys, "data")["options"]  # type: ignore[index]
    assert len(options) > 25
    assert [option["option"] for option in options if not option["meaning"]] == []


def test_data_describes_what_it_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = document(capsys, "data", home / "rows.csv", "--data", "target=kind")
    assert isinstance(told, dict)
    assert told["sizes"] == {"train": 48, "valid": 6, "test": 6}
    assert set(told["classes"]) == {"cold", "hot"}
    assert run("data") == 0
    assert "--data NAME=VALUE" in capsys.readouterr().out


def test_fit_writes_a_run_that_opens(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "fit",
        "pca",
        "digits",
        "--set",
        "latent=4",
        "--data",
        "limit=100",
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    told = document(capsys, *words)
    assert isinstance(told, dict)
    opened = ll.open(tmp_path / "run")
    assert opened.options == {"latent": 4}
    assert opened.data_options["limit"] == 100
    assert told["status"] == "done"


def test_fit_resumes_from_the_run_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("fit", "linear", home / "rows.csv", "--data", "target=kind", "--seed", 5, "--lr", 0.01)
    assert run(*start, "--epochs", 1, "--out", tmp_path / "a", "--quiet") == 0
    assert run("fit", "--resume", "--out", tmp_path / "a", "--epochs", 3, "--quiet") == 0
    assert run(*start, "--epochs", 3, "--out", tmp_path / "b", "--quiet") == 0
    first, second = (ll.open(tmp_path / name) for name in "ab")
    assert first.steps == second.steps == 3
    assert first.settings["lr"] == 0.01


def test_what_is_odd_about_data_is_told_also_where_progress_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i * i % 17}.5,1.0,{i}.25\n" for i in range(40))
    (tmp_path / "odd.csv").write_text("a,same,b\n" + rows + ",1.0,2\n,1.0,3\n")
    start = ("fit", "gmm", tmp_path / "odd.csv", "--set", "components=1", "--skip-bad", "--quiet")
    assert run(*start, "--out", tmp_path / "run") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "note: 2 bad samples were left out"
    assert 'odd.csv, row 42: column "a" is missing' in told[1]
    assert told[3] == "note: columns that are constant over the training split: same"
    assert run("data", tmp_path / "odd.csv", "--skip-bad") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("constant over the training split") == 1


def test_flags_of_fit_are_the_settings_of_fit() -> None:
    import inspect

    from leadline.cli import train

    flags = set(inspect.signature(train.fit).parameters)
    only_python = {"model", "data", "after_step", "probe", "probe_every", "progress"}
    renamed = {"compile": "compiled"}
    wanted = {renamed.get(name, name) for name in inspect.signature(ll.fit).parameters} - only_python
    assert wanted <= flags


def test_predict_names_the_classes(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.csv"
    new.write_text("b,note,a\n41,x,3.0\n39,y,-3.0\n", encoding="utf-8")
    rows = document(capsys, "predict", home / "linear", new)
    assert isinstance(rows, list)
    trained = ll.open(home / "linear")
    p = trained.model.predict(torch.tensor([[3.0, 41.0], [-3.0, 39.0]])).exp().detach()
    for row, told in zip(rows, p, strict=True):
        assert row["class"] == trained.labels.names[int(told.argmax())]
        assert row["p(hot)"] == pytest.approx(float(told[trained.labels.names.index("hot")]), abs=1e-6)
    assert rows[0]["sample"] == f"{new}, row 2"


def test_score_gives_the_log_probabilities_of_the_model(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert run("score", home / "pca", home / "rows.csv", "--out", out) == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "sample,log_prob,bits_per_dim"
    values = np.loadtxt(home / "rows.csv", delimiter=",", skiprows=1, usecols=(0, 1), dtype=np.float32)
    wanted = ll.open(home / "pca").model.log_prob(torch.from_numpy(values))
    found = torch.tensor([float(line.rsplit(",", 2)[1]) for line in lines[1:]])
    torch.testing.assert_close(found, wanted.detach())


def test_codes_go_out_and_come_back(home: Path, tmp_path: Path) -> None:
    for name in ("codes.npz", "codes.npy", "codes.csv"):
        assert run("encode", home / "digits", "digits", "--out", tmp_path / name) == 0
        back = tmp_path / f"{name}.npz"
        assert run("decode", home / "digits", tmp_path / name, "--out", back) == 0
        trained = ll.open(home / "digits")
        x = ll.load("digits").test.x
        wanted = trained.model.decode(trained.model.encode(x))
        assert np.array_equal(np.load(back)["x"], wanted.numpy())


def test_samples_repeat_with_the_seed(home: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("sample", home / "digits", "-n", 5, "--seed", seed, "--out", tmp_path / f"{name}.npy") == 0
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert a.shape == (5, 1, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_sampled_pictures_read_back_as_the_same_levels(home: Path, tmp_path: Path) -> None:
    assert run("sample", home / "digits", "-n", 3, "--out", tmp_path / "one.npy") == 0
    assert run("sample", home / "digits", "-n", 3, "--out", tmp_path / "folder") == 0
    assert run("sample", home / "digits", "-n", 3, "--out", tmp_path / "grid.png") == 0
    from leadline.data.samples import samples_for

    x, names = samples_for(ll.open(home / "digits").domain, [tmp_path / "folder"])
    assert np.array_equal(x.numpy(), np.load(tmp_path / "one.npy"))
    assert [Path(name).name for name in names] == ["0.png", "1.png", "2.png"]
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size[0] > 16


def test_rows_are_sampled_as_a_table_with_the_names_of_the_columns(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sample", home / "pca", "-n", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a,b"
    assert len(lines) == 3


def test_verify_answers_with_its_exit_status(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = document(capsys, "verify", home / "linear")
    assert isinstance(told, dict)
    assert not [law for law in told["laws"] if law["verdict"] == "broken"]


def test_studies_are_listed_and_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(capsys, "study")
    assert isinstance(listed, list)
    assert "random_labels" in [one["study"] for one in listed]
    assert 'did you mean "random_labels"' in failed(capsys, "study", "random_label")
    assert "a run that can sample" in failed(capsys, "study", "birthday_paradox")
    assert "leadline study em_monotone DATA" in failed(capsys, "study", "em_monotone")
    out = tmp_path / "finding.json"
    assert (
        run(
            "study",
            "birthday_paradox",
            home / "digits",
            "--set",
            "draws=50",
            "--set",
            "seeds=2",
            "--out",
            out,
        )
        == 0
    )
    assert "claim" in json.loads(out.read_text(encoding="utf-8"))


def test_a_mistyped_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'did you mean "score"' in failed(capsys, "scor")


def test_a_mistyped_model_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'did you mean "vae"' in failed(capsys, "fit", "vea", "digits")
    assert ", autoencoder, " in failed(capsys, "models", "gpt")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "pca"), "needs a model and data"),
        (("fit", "pca", "digitz"), "digits"),
        (("fit", "pca", "digits", "--set", "latnt=2"), 'did you mean "latent"'),
        (("fit", "pca", "digits", "--set", "latent=two"), "a whole number"),
        (("fit", "pca", "digits", "--set", "latent=999"), "latent must be in"),
        (("fit", "pca", "digits", "--data", "size"), "NAME=VALUE"),
        (("fit", "pca", "digits", "--epochs", "0"), "epochs"),
        (("fit", "pca", "digits", "--epoch", "3"), "--epochs"),
        (("fit", "linear", "digits", "--optimizer", "adamm"), "adam"),
        (("fit", "pca", "digits", "--budget", "soon"), "60s"),
        (("fit", "--resume"), "--out"),
        (("sample", "nowhere"), "no file or run nowhere"),
        (("compare", "digits", "--task", "dens"), "density"),
        (("compare", "digits", "--models", "pca,x"), "unknown"),
        (("compare", "digits", "--set", "latent=3"), "MODEL.NAME=VALUE"),
    ],
)
def test_wrong_words_get_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failed(capsys, *words)


def test_a_truncated_description_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(
        (home / "pca" / "run.json").read_text(encoding="utf-8")[:40], encoding="utf-8"
    )
    for verb in (("sample",), ("verify",), ("report",)):
        assert "run.json" in failed(capsys, *verb, tmp_path)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    assert "run.json" in failed(capsys, "sample", tmp_path)
    assert "run.json" in failed(capsys, "fit", "--resume", "--out", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.csv", "", "empty"),
        ("nan.csv", "a,b\n1,2\n3,NaN\n", 'row 3, column "b": a number is missing'),
        ("word.csv", "a,b\n1,2\n3,much\n", "'much' is no finite number"),
        ("other.csv", "a,c\n1,2\n3,4\n", 'no column "b"'),
        ("short.csv", "a,b\n1,2\n3\n4,5\n", "row 3"),
        ("text.txt", "hello", "is a text"),
        ("x.xyz", "hello", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_its_row(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    told = failed(capsys, "score", home / "pca", tmp_path / name)
    assert said in told
    assert name in told


def test_a_missing_file_and_a_missing_verb_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in failed(capsys, "score", home / "pca", home / "new.csv")
    assert "has no log_prob" in failed(capsys, "score", home / "linear", home / "rows.csv")
    assert "has no options" in failed(capsys, "score", home / "pca", home / "rows.csv", "--set", "samples=3")


def test_bad_codes_are_named(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 7), np.float32))
    assert "codes of 3 numbers, these have 7" in failed(
        capsys, "decode", home / "digits", tmp_path / "wide.npy"
    )
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan, np.float32))
    assert "not finite" in failed(capsys, "decode", home / "digits", tmp_path / "nan.npy")
    (tmp_path / "no.npz").write_bytes(b"PK")
    assert "holds no codes" in failed(capsys, "decode", home / "digits", tmp_path / "no.npz")


def test_an_output_that_cannot_be_written_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot write" in failed(capsys, "sample", home / "digits", "--out", tmp_path / "file" / "x.npz")
    assert ".png" in failed(capsys, "sample", home / "digits", "--out", tmp_path / "x.gif")


@pytest.mark.parametrize(
    "command", [("draw", "nowhere.bif"), ("sample", "nowhere"), ("study", "depth", "nowhere")]
)
def test_the_ending_of_an_output_is_checked_before_the_work(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "x.gz: its name must end in " in failed(capsys, *command, "--out", "x.gz")


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sample", "nowhere", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_is_one_line_and_status_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **kwargs: object) -> Run:
        raise KeyError("surprise")

    monkeypatch.setattr("leadline.cli.loading.open_run", broken)
    assert run("sample", home / "pca") == 1
    assert (
        capsys.readouterr().err
        == "error: KeyError: 'surprise'; this is a fault of leadline: run with --debug to see where\n"
    )
