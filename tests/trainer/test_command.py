"""Exit codes and prefixes of errors of `python -m trainer`. The flow that starts it uses them."""

import trainer.loop
from flows.trainer_process import FAILURE_PREFIX, REFUSAL_PREFIX
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import write_config
from trainer.__main__ import main


def test_user_errors_and_failures_differ_in_exit_code_and_prefix(tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path, write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run")
    assert main([str(config), "--set", "mixture.level=3"]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert refused.startswith(REFUSAL_PREFIX)
    assert not refused.startswith(FAILURE_PREFIX)

    def fail(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(trainer.loop, "train", fail)
    assert main([str(config)]) == 1
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"{FAILURE_PREFIX}ZeroDivisionError: a bug")
    assert lines[0] == "Traceback (most recent call last):"
