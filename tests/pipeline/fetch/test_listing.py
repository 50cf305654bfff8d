import pytest

from data_catalog.errors import UserError
from pipeline.fetch.listing import FileTag, RefusedLine, parse_shards, read_listing


def test_each_line_is_a_tag():
    found = list(read_listing("2023-06/0000/en_head\r\n\n 2014-15/4999/de_tail \n"))
    assert found == [FileTag("2023-06", 0, "en", "head"), FileTag("2014-15", 4999, "de", "tail")]
    assert [str(tag) for tag in found] == ["2023-06/0000/en_head", "2014-15/4999/de_tail"]


@pytest.mark.parametrize(
    "line",
    [
        "../../etc/passwd",
        "2023-06/0000/../en_head",
        "/2023-06/0000/en_head",
        "2023-06/0000/en_head/..",
        "2023-06/0000/en_head.json.gz",
        "2023-06/0000/en_head\0",
        "2023-06/00\u0660\u0660/en_head",  # digits, but not ASCII
        "2023-06\\0000\\en_head",
        "2023-06/0000/en_whole",
        "https://elsewhere.example/x",
    ],
)
def test_a_line_of_any_other_form_is_refused_by_its_number(line):
    assert list(read_listing(f"2023-06/0000/en_head\n{line}\n"))[1:] == [
        RefusedLine(2, ascii(line))
    ]


def test_only_the_beginning_of_a_refused_line_is_quoted():
    (refused,) = read_listing("x" * 10_000_000)
    assert len(refused.text) == 202


def test_shards_are_numbers_and_ranges():
    assert parse_shards("0-3, 7") == {0, 1, 2, 3, 7}
    for wrong in ("", "a", "3-1", "1-", "-1", "0,,1", "12345"):
        with pytest.raises(UserError, match=f'shards "{wrong}"'):
            parse_shards(wrong)
