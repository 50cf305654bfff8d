"""HTML of text and numbers."""

from flows.pages.shared.markup import escape_html, percent, script_json, short_number


def test_text_json_and_numbers_in_html() -> None:
    assert escape_html('<a b="\x01">&') == "&lt;a b=&quot;\ufffd&quot;&gt;&amp;"
    assert script_json({"k": "</script>\u2028"}) == '{"k":"\\u003c/script>\\u2028"}'
    assert [short_number(v) for v in (None, 999, 1234.5, 20_000, 12_300_000, 0.01234)] == [
        "–",
        "999",
        "1,234",
        "20k",
        "12.3M",
        "0.0123",
    ]
    assert [percent(v) for v in (0.0, 0.0001, 0.012, 0.5)] == [
        "0%",
        "less than 0.1%",
        "1.2%",
        "50%",
    ]
