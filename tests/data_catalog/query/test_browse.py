import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.query.browse import describe_domain, find_domains


@pytest.fixture(scope="module")
def catalog(built):
    return data_catalog.open(built[0])


def test_the_largest_domains_of_the_coarsest_level_are_first(catalog):
    found = find_domains(catalog)
    assert found.column_names == ["level", "domain", "documents", "tokens", "terms", "flags"]
    assert found["level"].to_pylist() == [2, 2]
    tokens = found["tokens"].to_pylist()
    assert tokens == sorted(tokens, reverse=True)
    assert sum(found["documents"].to_pylist()) == catalog.manifest.documents
    assert find_domains(catalog, level=4, limit=3)["level"].to_pylist() == [4, 4, 4]
    assert find_domains(catalog, level=4, limit=None).num_rows == 4


def test_search_finds_domains_with_all_words_best_match_first(catalog):
    every = {
        (row["level"], row["domain"]): row["terms"]
        for row in find_domains(catalog, level=4, limit=None).to_pylist()
    }
    (level, domain), terms = next(iter(every.items()))
    term = terms[0]
    found = find_domains(catalog, level=4, search=term.upper()).to_pylist()
    assert term in found[0]["terms"]
    assert {(row["level"], row["domain"]) for row in found} == {
        key for key, words in every.items() if any(term in word for word in words)
    }
    places = [row["terms"].index(term) for row in found if term in row["terms"]]
    assert places == sorted(places)
    other = next(word for word in terms if word != term)
    assert (level, domain) in {
        (r["level"], r["domain"])
        for r in find_domains(catalog, search=f"{other} {term} {term}").to_pylist()
    }
    assert find_domains(catalog, search=f"{term} nothing-has-this").num_rows == 0
    assert len({row["level"] for row in find_domains(catalog, search=term).to_pylist()}) == 2


def test_a_target_orders_by_its_weight(catalog):
    found = find_domains(catalog, level=4, target="space")
    expected = catalog.sql(
        "SELECT domain, weight FROM distributions "
        "WHERE name = 'space' AND kind = 'hard' AND level = 4"
    ).fetchall()
    assert dict(zip(found["domain"].to_pylist(), found["weight"].to_pylist(), strict=True)) == dict(
        expected
    )
    weights = find_domains(catalog, level=4, target="natural")["weight"].to_pylist()
    assert len(set(weights)) > 1
    assert weights == sorted(weights, reverse=True)
    term = found["terms"].to_pylist()[0][0]
    assert (
        find_domains(catalog, level=4, target="space", search=term)["domain"][0]
        == found["domain"][0]
    )


def test_description_of_one_domain(catalog):
    found = describe_domain(catalog, 2, 1)
    assert (found["level"], found["domain"], found["parent"], found["child_level"]) == (
        2,
        1,
        None,
        4,
    )
    assert {row["domain"] for row in found["children"]} == {2, 3}
    assert sum(row["documents"] for row in found["children"]) == found["documents"]
    natural = catalog.sql(
        "SELECT weight FROM distributions WHERE name = 'natural' AND level = 2 AND domain = 1"
    ).fetchall()[0][0]
    [space] = [row for row in found["targets"] if row["name"] == "space"]
    assert space["times_natural"] == pytest.approx(space["weight"] / natural)
    assert {row["kind"] for row in found["examples"]} == {"nearest", "typical", "boundary"}
    ids = {row["doc_id"] for row in found["examples"]}
    assert ids <= {
        doc_id for (doc_id,) in catalog.sql("SELECT doc_id FROM domain_docs(2, 1)").fetchall()
    }
    assert describe_domain(catalog, 4, 3)["parent"] == 1
    assert describe_domain(catalog, 4, 3)["children"] == []


def test_unknown_names_are_refused(catalog):
    with pytest.raises(UserError, match=r"target spcae: not in .*\. Did you mean space\?"):
        find_domains(catalog, target="spcae")
    with pytest.raises(UserError, match=r"level 3: .*\[2, 4\]"):
        find_domains(catalog, level=3)
    with pytest.raises(UserError, match="search: "):
        find_domains(catalog, search=" ")
    with pytest.raises(UserError, match=r"domain 2: .*level 2.* 0 to 1"):
        describe_domain(catalog, 2, 2)


def test_names_are_values_not_sql(catalog):
    with pytest.raises(UserError, match="target space"):
        find_domains(catalog, target="space' OR 1 = 1 --")
    assert find_domains(catalog, search="'); DROP VIEW domains; --").num_rows == 0
