from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from data_catalog.errors import UserError
from data_catalog.settings import Settings, load, overridden, parse


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
    with pytest.raises(UserError, match=r"inner\.beem: unknown key\. Did you mean beam\?"):
        load(Outer, file)


def test_an_unknown_key_without_a_similar_one_lists_the_known_keys():
    with pytest.raises(UserError, match=r"many\.1\.zzz: unknown key\. Known keys: beam"):
        parse(Outer, {"out": "a", "many": [{}, {"zzz": 1}]}, "x")


def test_a_wrong_value_is_shown():
    with pytest.raises(UserError, match=r"inner\.beam: .*found 'wide'"):
        parse(Outer, {"out": "a", "inner": {"beam": "wide"}}, "x")


@pytest.mark.parametrize(
    ("text", "message"), [("out = ", r"config\.toml: .*TOML"), (None, r"config .*none\.toml:")]
)
def test_other_files_than_configs_are_refused(tmp_path, text, message):
    file = write(tmp_path, text) if text else tmp_path / "none.toml"
    with pytest.raises(UserError, match=message):
        load(Outer, file)


def test_an_override_needs_an_equals_sign():
    with pytest.raises(UserError, match=r"--set inner\.beam: .*key\.sub=value"):
        load(Outer, None, ["inner.beam"])


def test_an_override_reaches_into_a_list_by_number(tmp_path):
    file = write(tmp_path, 'out = "a"\n[[many]]\nbeam = 2\n[[many]]\nbeam = 3\n')
    assert load(Outer, file, ["many.1.beam=5"]).many == (Inner(beam=2), Inner(beam=5))
    for wrong, message in (
        ("many.2.beam=5", r"many\.2\.beam=5: .*2 entries"),
        ("many.1=5", r"many is a list.* many\.0\.KEY=value"),
    ):
        with pytest.raises(UserError, match=message):
            load(Outer, file, [wrong])


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Inner().beam = 3


class Named(Settings):
    mixer: Literal["natural", "dga"] = "dga"


class File(Settings):
    kind: Literal["file"]


class Web(Settings):
    kind: Literal["web"]


class Whole(Settings):
    named: Named = Named()
    source: Annotated[File | Web, Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            {"named": {"mixer": "dgaa"}},
            "x: named.mixer: found 'dgaa'. Expected 'natural' or 'dga'. Did you mean dga?",
        ),
        (
            {"named": {"mixer": 7}},
            "x: named.mixer: found 7. Expected 'natural' or 'dga'.",
        ),
        (
            {"source": {"kind": "fil"}},
            "x: source: kind is 'fil'. Expected one of 'file', 'web'. Did you mean file?",
        ),
        ({"source": {}}, "x: source: kind is missing. It selects the kind of the table."),
        ({}, "x: source: missing. Give it in the file or with --set."),
    ],
)
def test_an_invalid_choice_gets_a_suggestion(tree, sentence):
    with pytest.raises(UserError) as refused:
        parse(Whole, {"source": {"kind": "file"}, **tree} if tree else {}, "x")
    assert str(refused.value) == sentence


def test_overrides_do_not_change_the_mapping():
    tree = {"inner": {"beam": 2}}
    assert overridden(tree, ["inner.beam=3"]) == {"inner": {"beam": 3}}
    assert tree == {"inner": {"beam": 2}}
    with pytest.raises(UserError, match=r"--set inner\.beam=3: inner "):
        overridden({"inner": 3}, ["inner.beam=3"])


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        ({"catalog": "c", "out": "r", "target": "t"}, "a training config"),
        ({"source": {}, "out": "c"}, "a build config"),
        ({"source": {}}, "a config of an addition"),
    ],
)
def test_a_config_of_another_command_is_recognised(tree, kind):
    with pytest.raises(UserError, match=rf"^f\.toml: this is {kind}: run `clustermix "):
        parse(Outer, tree, "f.toml")
