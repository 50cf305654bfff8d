import pyarrow as pa

from data_catalog.format.columns import SIGNALS_TYPE
from pipeline.quality.signals.fill import fill_signals, without_signals


def signals(*documents):
    return pa.array(
        [None if found is None else list(found.items()) for found in documents], SIGNALS_TYPE
    )


def test_only_documents_without_rps_signals_get_them():
    shipped = signals(
        {"rps_doc_ut1_blacklist": None, "x": 1.0},
        {},
        {"ccnet_length": 99.0, "ccnet_perplexity": 7.0},
        None,
    )
    assert without_signals(shipped).tolist() == [False, True, True, True]
    filled = [
        dict(row)
        for row in fill_signals(
            shipped, pa.array(["a b", "two words", "Three more words", ""])
        ).to_pylist()
    ]
    assert filled[0] == {"rps_doc_ut1_blacklist": None, "x": 1.0}
    assert (filled[1]["rps_doc_word_count"], filled[1]["ccnet_length"]) == (2, 9)
    assert (
        filled[2]["rps_doc_word_count"],
        filled[2]["ccnet_length"],
        filled[2]["ccnet_perplexity"],
    ) == (3, 99, 7)
    assert filled[3]["rps_doc_word_count"] == 0
    assert "rps_doc_mean_word_length" not in filled[3]


def test_names_are_there_once_and_none_is_made_up():
    [row] = fill_signals(signals({"ccnet_nlines": 5.0}), pa.array(["a"])).to_pylist()
    names = [name for name, _ in row]
    assert len(set(names)) == len(names) == 28
    assert not {
        "rps_doc_stop_word_fraction",
        "rps_doc_ldnoobw_words",
        "rps_doc_ut1_blacklist",
    } & set(names)


def test_what_was_shipped_comes_first_in_its_order():
    shipped = {f"ccnet_{number}": float(number) for number in range(50)}
    filled = fill_signals(signals(shipped, {}, shipped), pa.array(["a", "b", "c"])).to_pylist()
    assert [dict(row[:50]) for row in (filled[0], filled[2])] == [shipped, shipped]
    assert [name for name, _ in filled[0][:50]] == list(shipped)


def test_what_is_complete_is_left_alone_and_nothing_is_nothing():
    shipped = signals({"rps_doc_word_count": 1.0})
    assert fill_signals(shipped, pa.array(["a b c"])) is shipped
    assert fill_signals(signals(), pa.array([], pa.large_string())).to_pylist() == []


def test_a_slice_is_filled_by_its_own_texts():
    shipped = signals({"rps_doc_word_count": 1.0}, {}, {"rps_doc_word_count": 2.0}, {}).slice(1, 2)
    filled = fill_signals(
        shipped, pa.array(["x", "a b c", "d e", "y"], pa.large_string()).slice(1, 2)
    ).to_pylist()
    assert [dict(row)["rps_doc_word_count"] for row in filled] == [3, 2]
