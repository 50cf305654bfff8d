from data_catalog.errors import suggestion


def test_a_similar_name_is_suggested_ignoring_case():
    assert suggestion("heldout_lw", ["heldout_web", "heldout_law"]) == "Did you mean heldout_law?"
    assert suggestion("MMLU", ["mmlu"]) == "Did you mean mmlu?"


def test_otherwise_known_names_are_listed():
    assert suggestion("zzz", ["a", "b"], "Its targets") == "Its targets: a, b."
    assert suggestion("zzz", []) == "Known names: none."
    assert suggestion("zzz", map(str, range(22))).endswith(", 19 and 2 more.")
