"""Runs in SQL, for a run of the trainer and for folders made by hand."""

import json
import logging
import shutil
from pathlib import Path

import duckdb
import pytest

import data_catalog
from data_catalog import UserError
from data_catalog.query.run_views import run_labels
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_run import write_run
from tests.helpers.tiny_training import records, tiny_config
from trainer.loop import train

MACROS = {
    "runs": "run_summary",
    "metrics": "run_metrics",
    "weights": "run_weights",
    "scores": "run_scores",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny catalog and a finished run on it: 12 steps, 5 a stage."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(
        write_tiny_catalog(folder / "catalog"),
        folder / "runs" / "dga",
        training={"steps": 12},
        checkpoint={"every_steps": 0},
    )
    assert train(config)
    return config


@pytest.fixture(scope="module")
def catalog(trained):
    return data_catalog.open(trained.catalog, runs=[trained.out])


def lines(config, kind):
    return records(config.out, kind)


def test_a_run_is_one_row(trained, catalog):
    [final], losses = (
        lines(trained, "final"),
        {found["set"]: found["loss"] for found in lines(trained, "eval")},
    )
    [run] = catalog.sql("SELECT * EXCLUDE config FROM runs").to_arrow_table().to_pylist()
    assert run == {
        "run": "dga",
        "folder": str(trained.out),
        **{"target": "spe", "mixer": "dga", "basis": "distributions", "level": 8, "seed": 0},
        "members": ["other", "spe", "natural", "uniform"],
        **{
            "planned_steps": 12,
            "batch_sequences": 6,
            "sequence_tokens": 16,
            "finished": True,
            "step": 12,
        },
        **{
            name: final[name]
            for name in (
                "tokens",
                "seconds",
                "scoring_seconds",
                "data_seconds",
                "repeats",
                "model_parameters",
            )
        },
        "target_validation_loss": losses["target/validation"],
        "target_test_loss": losses["target/test"],
        "general_loss": losses["general"],
        "catalog": catalog.manifest.fingerprint,
    }
    assert catalog.sql("SELECT config ->> '$.optimizer.learning_rate' FROM runs").fetchall() == [
        ("0.01",)
    ]


def test_every_record_is_a_row_with_its_numbers(trained, catalog):
    written = [
        json.loads(line) for line in (trained.out / "metrics.jsonl").read_text().splitlines()
    ]
    found = catalog.sql("FROM metrics").to_arrow_table().to_pylist()
    assert [json.loads(row["record"]) for row in found] == written
    columns = {"interval": "stage", "held_out": "set", "learning_rate": "lr"}
    names = (
        "kind",
        "interval",
        "stage",
        "tokens",
        "held_out",
        "loss",
        "error",
        "bits_per_byte",
        "learning_rate",
        "gradient_norm",
        "seconds",
    )
    for row, record in zip(found, written, strict=True):
        assert {name: row[name] for name in names} == {
            name: record.get(columns.get(name, name)) for name in names
        }
    assert {
        name for row in found for name in (*names, "tokens_per_second") if row[name] is not None
    } == {*names, "tokens_per_second"}


def test_the_weight_log_has_a_row_per_stage_and_member(trained, catalog):
    found = (
        catalog.sql("FROM weights WHERE run = 'dga' AND interval > 0").to_arrow_table().to_pylist()
    )
    expected = [
        {
            "run": "dga",
            "interval": r["stage"],
            "first_sequence": 30 * r["stage"],
            "member": member,
            "alpha": a,
            "sampling": s,
            "score": score,
            "stage": r["stage"],
        }
        for r in lines(trained, "update")
        for member, a, s, score in zip(
            ("other", "spe", "natural", "uniform"),
            r["alpha"],
            r["sampling"],
            r["scores"],
            strict=True,
        )
    ]
    assert found == expected
    assert (
        catalog.sql("SELECT sampling, score FROM weights WHERE interval = 0").fetchall()
        == [(0.25, None)] * 4
    )


def test_scores_include_the_measurements(trained, catalog):
    found = catalog.sql(
        "SELECT interval, step, member, score, error, loss, effective FROM scores"
    ).fetchall()
    assert found == [
        (r["stage"], r["step"], *rest)
        for r in lines(trained, "update")
        for rest in zip(
            ("other", "spe", "natural", "uniform"),
            *(r[name] for name in ("scores", "errors", "losses", "effective")),
            strict=True,
        )
    ]
    assert len(found) == 8


def test_macros_and_views_give_the_same_rows(trained, catalog):
    with duckdb.connect() as shell:
        for statement in data_catalog.query.run_views.run_macros():
            shell.execute(statement)
        for view, macro in MACROS.items():
            expected = catalog.sql(f"SELECT * EXCLUDE run FROM {view}").fetchall()
            for folder in (trained.out, f"{trained.out}/", trained.out.parent / "*"):
                assert (
                    shell.execute(f"SELECT * EXCLUDE run FROM {macro}('{folder}')").fetchall()
                    == expected
                )
                assert shell.execute(
                    f"SELECT DISTINCT run FROM {macro}('{folder}')"
                ).fetchall() == [(str(trained.out),)]


@pytest.fixture
def several(trained, tmp_path):
    """Write two runs with one name, one named like a pattern, and one that has just begun."""
    for name in ("a/dga", "b/dga", "b/o'd [d]", "b/o'd d"):
        write_run(tmp_path / name, mixer="natural" if name == "a/dga" else "dga")
    begun = write_run(tmp_path / "b" / "begun")
    (begun / "weights.parquet").unlink()
    (begun / "metrics.jsonl").write_text(
        '{"kind": "eval", "step": 0, "set": "general", "loss": 7.5}\n3\n{"kind": "train", "st'
    )
    (tmp_path / "b" / "notes.txt").write_text("not a run")
    return tmp_path


def test_runs_are_named_by_the_distinct_part_of_their_path(trained, several):
    catalog = data_catalog.open(
        trained.catalog, runs=[several / "a/dga", f"{several}/b/*", several / "b/dga"]
    )
    assert catalog.sql("SELECT run, mixer, finished FROM runs").fetchall() == [
        ("a/dga", "natural", True),
        ("b/begun", "dga", False),
        ("b/dga", "dga", True),
        ("b/o'd [d]", "dga", True),
        ("b/o'd d", "dga", True),
    ]
    assert {run for (run,) in catalog.sql("SELECT run FROM metrics").fetchall()} == {
        "a/dga",
        "b/begun",
        "b/dga",
        "b/o'd [d]",
        "b/o'd d",
    }
    assert catalog.sql("SELECT count(*) FROM weights WHERE run = 'b/o''d [d]'").fetchall() == [
        (15,)
    ]


def test_a_run_that_has_just_begun_can_be_queried(trained, several):
    catalog = data_catalog.open(trained.catalog, runs=[several / "b/begun"])
    assert catalog.sql(
        "SELECT run, finished, step, tokens, general_loss, target_test_loss FROM runs"
    ).fetchall() == [("begun", False, 0, None, 7.5, None)]
    assert catalog.sql("SELECT kind, loss FROM metrics").fetchall() == [("eval", 7.5)]
    with pytest.raises(UserError, match=r"query: the view weights .* runs"):
        catalog.sql("FROM weights")


def test_only_the_named_runs_can_be_read(trained, several):
    catalog = data_catalog.open(trained.catalog, runs=[several / "b/dga"])
    assert catalog.sql(f"SELECT count(*) > 0 FROM run_metrics('{several}/b/dga')").fetchall() == [
        (True,)
    ]
    (several / "b/dga2").mkdir()
    for elsewhere in ("a/dga", "b/dga2", "b/dga/../begun"):
        with pytest.raises(UserError, match="disabled by configuration"):
            catalog.sql(f"FROM run_metrics('{several}/{elsewhere}')").fetchall()
    with pytest.raises(UserError, match="disabled by configuration"):
        data_catalog.open(trained.catalog).sql(f"FROM run_summary('{several}/b/dga')").fetchall()


def test_a_run_on_another_catalog_gives_a_warning(trained, several, caplog):
    with caplog.at_level(logging.WARNING):
        data_catalog.open(trained.catalog, runs=[trained.out])
        assert caplog.text == ""
        data_catalog.open(
            trained.catalog, runs=[trained.out, several / "b/begun", several / "a/dga"]
        )
    assert "begun, a/dga: trained on another catalog" in caplog.text.replace("b/begun", "begun")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nothing", "runs .*nothing:"),
        ("b/*.txt", r"runs .*b/\*\.txt:"),
        ("b", "runs .*b:"),
    ],
)
def test_other_folders_than_runs_are_refused(trained, several, asked, message):
    with pytest.raises(UserError, match=message):
        data_catalog.open(trained.catalog, runs=[several / asked])


def test_a_damaged_config_is_named(trained, several):
    for text in ("{", "[]"):
        (several / "b/dga/config.json").write_text(text)
        with pytest.raises(UserError, match=r"b/dga/config\.json: "):
            data_catalog.open(trained.catalog, runs=[several / "b/dga"])


def test_links_out_of_a_run_are_refused(trained, several):
    shutil.move(several / "b/dga/metrics.jsonl", several / "elsewhere.jsonl")
    (several / "b/dga/metrics.jsonl").symlink_to(several / "elsewhere.jsonl")
    with pytest.raises(UserError, match=r"dga: metrics\.jsonl"):
        data_catalog.open(trained.catalog, runs=[several / "b/dga"])


def test_labels_are_as_short_as_they_can_be():
    assert run_labels([Path("/x/a/dga"), Path("/x/b/natural")]) == ["dga", "natural"]
    assert run_labels([Path("/x/a/dga"), Path("/y/a/dga")]) == ["x/a/dga", "y/a/dga"]
    assert run_labels([]) == []


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_footer_of_an_unfinished_log_is_named(trained, tmp_path):
    run = shutil.copytree(trained.out, tmp_path / "run")
    (run / "checksums.json").unlink(missing_ok=True)
    shutil.rmtree(run / "model")
    log = run / "weights.parquet"
    sound = log.read_bytes()
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    expected = data_catalog.open(trained.catalog, runs=[run]).table("FROM weights")
    messages = []
    for place in range(footer, len(sound), 29):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        log.write_bytes(damaged)
        try:
            found = data_catalog.open(trained.catalog, runs=[run]).table("FROM weights")
            assert found.num_rows == expected.num_rows
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert [message for message in messages if "weights.parquet" not in message] == []
