from data_catalog.errors import suggestion


def test_a_name_like_a_known_one_is_suggested_whatever_its_case():
    assert suggestion("heldout_lw", ["heldout_web", "heldout_law"]) == "Did you mean heldout_law?"
    assert suggestion("MMLU", ["mmlu"]) == "Did you mean mmlu?"


def test_else_what_there_is():
    assert suggestion("zzz", ["a", "b"], "Its targets") == "Its targets: a, b."
    assert suggestion("zzz", []) == "Known names: none."
    assert suggestion("zzz", map(str, range(22))).endswith(", 19 and 2 more.")
