from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.settings import Settings, load, parse


class Inner(Settings):
    beam: int = 8


class Outer(Settings):
    out: Path
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


def write(path: Path, text: str) -> Path:
    file = path / "config.toml"
    file.write_text(text)
    return file


def test_defaults_then_file_then_overrides(tmp_path):
    file = write(tmp_path, 'out = "a"\n[inner]\nbeam = 2\n')
    assert load(Outer, file) == Outer(out=Path("a"), inner=Inner(beam=2))
    assert load(Outer, file, ["inner.beam=3", "out=b"]) == Outer(out=Path("b"), inner=Inner(beam=3))


def test_an_unknown_key_is_named_by_its_dotted_path_with_a_suggestion(tmp_path):
    file = write(tmp_path, 'out = "a"\n[inner]\nbeem = 2\n')
    with pytest.raises(UserError, match=r"inner\.beem: unknown key; did you mean beam\?"):
        load(Outer, file)


def test_an_unknown_key_in_a_list_and_one_without_likeness():
    with pytest.raises(UserError, match=r"many\.1\.zzz: unknown key; known keys: beam"):
        parse(Outer, {"out": "a", "many": [{}, {"zzz": 1}]}, "x")


def test_a_wrong_value_is_shown():
    with pytest.raises(UserError, match=r"inner\.beam: .*found 'wide'"):
        parse(Outer, {"out": "a", "inner": {"beam": "wide"}}, "x")


@pytest.mark.parametrize(("text", "message"), [("out = ", "not valid TOML"), (None, "cannot be read")])
def test_a_file_that_is_not_a_config(tmp_path, text, message):
    file = write(tmp_path, text) if text else tmp_path / "none.toml"
    with pytest.raises(UserError, match=message):
        load(Outer, file)


def test_an_override_needs_an_equals_sign():
    with pytest.raises(UserError, match=r"expected key\.sub=value"):
        load(Outer, None, ["inner.beam"])


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Inner().beam = 3
