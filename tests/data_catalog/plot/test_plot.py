"""Figures of a small catalog."""

import json
import re
import sys

import numpy as np
import pytest

import data_catalog
from data_catalog import UserError
from data_catalog.format.centroids import project, read_centroids
from data_catalog.plot.look import format_count, format_share, line_style
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.tiny_run import write_run

pytest.importorskip("plotly", reason="plotly is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plotted")
    write_domains_catalog(folder / "catalog")
    write_run(folder / "runs" / "dga", basis=("law", "natural", "uniform"), target="law")
    write_run(
        folder / "runs" / "natural",
        basis=("natural",),
        mixer="natural",
        target="law",
        losses=(6.0, 5.0, 4.5, 4.0, 3.75, 3.5),
    )
    updates = [
        {
            "kind": "update",
            "stage": s,
            "step": 10 * s,
            "scores": [0.5, 0.25 * s, None],
            "errors": [0.125, None, None],
            "losses": [3, 3, 3],
        }
        for s in (1, 2)
    ]
    with (folder / "runs" / "dga" / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in updates)
    return folder


@pytest.fixture(scope="module")
def catalog(folder):
    return data_catalog.open(folder / "catalog", runs=[folder / "runs" / "*"])


def test_a_treemap_nests_two_levels_and_its_areas_are_tokens(catalog):
    [trace] = catalog.plot.treemap().data
    assert trace.ids == ("all", "2/0", "2/1", "4/0", "4/1", "4/2", "4/3")
    assert trace.parents == ("", "all", "all", "2/0", "2/0", "2/1", "2/1")
    assert (trace.values, trace.branchvalues) == ((0, 0, 0, 1000, 2000, 3000, 4000), "remainder")
    assert trace.labels[1:5] == (
        "<b>0</b> tensor, layer",
        "<b>1</b> socket",
        "<b>0</b><br>tensor<br>layer",
        "<b>1</b><br>socket",
    )
    assert trace.customdata[4] == ["4/1", "socket", "20 documents, 2,000 tokens"]
    assert set(trace.marker.colors[3:]) == {"#b5d3e7"}


def test_a_treemap_of_the_coarsest_level_is_not_nested(catalog):
    [trace] = catalog.plot.treemap(2).data
    assert (trace.ids, trace.parents, trace.values) == (
        ("all", "2/0", "2/1"),
        ("", "all", "all"),
        (0, 3000, 7000),
    )


@pytest.mark.parametrize(
    ("colour", "colours", "ticks", "label"),
    [
        ("law", (0, 1, 0, 0), ("0%", "6.2%", "25%", "56.2%", "100%"), "weight in law: 100%"),
        (
            "natural",
            (0.5, 0.5**0.5, 0.75**0.5, 1),
            ("0%", "2.5%", "10%", "22.5%", "40%"),
            "weight in natural: 20%",
        ),
        (
            "distance",
            (0, 1 / 3, 2 / 3, 1),
            ("0.25", "0.438", "0.625", "0.812", "1"),
            "mean distance to the leaf's centroid: 0.5",
        ),
        (
            "quality",
            (1, 0, 0, 0),
            ("0%", "3.1%", "12.5%", "28.1%", "50%"),
            "share of its sources that was dropped: 0%",
        ),
    ],
)
def test_numbers_are_shades_of_one_ramp(catalog, colour, colours, ticks, label):
    [trace] = catalog.plot.treemap(4, colour).data
    assert trace.marker.colors[3:] == pytest.approx(colours)
    assert trace.marker.colors[:3] == (-0.004,) * 3  # boxes that hold others are neutral
    assert trace.marker.colorbar.ticktext == ticks
    assert trace.customdata[4][2].split("<br>")[1] == label


def test_the_distance_distribution_can_be_shown_too(catalog):
    assert catalog.plot.treemap(4, "law", kind="distance").data[0].marker.colors[3:] == (1, 1, 1, 1)


def test_sources_are_categories_with_a_legend(catalog):
    figure = catalog.plot.treemap(4, "source")
    assert figure.data[0].marker.colors[3:] == (
        "#d597bd",
        "#3fae8c",
        "#e69f4c",
        "#3a8fc4",
    )  # the most tokens first
    assert re.findall(r"color:(#\w+)'>■</span> ([\w. ]+)", figure.layout.title.text) == [
        ("#3a8fc4", "site3.org "),
        ("#e69f4c", "site2.org "),
        ("#3fae8c", "site1.org "),
        ("#d597bd", "site0.org"),
        ("#dde2e8", "other or unknown"),
    ]


def test_a_quality_signal_is_averaged_over_documents(built):
    catalog = data_catalog.open(built[0])
    signal = "rps_doc_word_count"
    [trace] = catalog.plot.treemap(2, signal).data
    means = dict(
        catalog.sql(
            f"SELECT leaf // 2, avg(signals['{signal}']) FROM documents GROUP BY ALL"
        ).fetchall()
    )
    assert [row[2].split("<br>")[1] for row in trace.customdata[1:]] == [
        f"mean {signal}: {means[d]:.3g}" for d in (0, 1)
    ]


def test_the_map_has_the_centroids_in_their_places(catalog):
    places, _ = project(read_centroids(catalog.files, [2, 4]))
    [trace] = catalog.plot.map(4, "law").data
    assert np.column_stack([trace.x, trace.y]) == pytest.approx(
        places[4][[3, 2, 1, 0]]
    )  # large ones below small ones
    assert [row[0] for row in trace.customdata] == ["4/3", "4/2", "4/1", "4/0"]
    assert np.square(trace.marker.size) / trace.marker.size[0] ** 2 == pytest.approx(
        [1, 0.75, 0.5, 0.25]
    )
    assert trace.marker.color == (0, 0, 1, 0)
    assert {"3", "1 socket"} <= set(trace.text)


def test_sizes_are_ranked(catalog):
    coarse, fine = catalog.plot.domain_sizes().data
    assert (fine.name, fine.x, fine.y) == ("level 4", (1, 2, 3, 4), (4000, 3000, 2000, 1000))
    assert (coarse.x, coarse.y, coarse.customdata[0][0]) == ((1, 2), (7000, 3000), "2/1")
    assert [trace.name for trace in catalog.plot.domain_sizes(2).data] == ["level 2"]


def test_distributions_are_rows(catalog):
    [trace] = catalog.plot.distributions().data
    assert (trace.y, trace.x) == (("law", "natural", "uniform"), (0, 1))
    assert trace.text == (["0%", "100%"], ["30%", "70%"], ["50%", "50%"])
    assert np.array(trace.z) ** 2 == pytest.approx(np.array([[0, 1], [0.3, 0.7], [0.5, 0.5]]))
    assert trace.customdata[0] == ["0 tensor, layer", "1 socket"]
    assert catalog.plot.distributions(4, "distance").data[0].text[0] == ["25%"] * 4


def test_overlaps_of_all_pairs(catalog):
    [trace] = catalog.plot.overlaps(2).data
    assert trace.x == trace.y == ("law", "natural", "uniform")
    assert [[None if v is None else round(v, 3) for v in row] for row in trace.z] == [
        [None, 0.7, 0.5],
        [0.7, None, 0.8],
        [0.5, 0.8, None],
    ]
    [distance] = catalog.plot.overlaps(2, measure="hellinger").data
    assert distance.reversescale
    assert distance.z[0][1] == pytest.approx((1 - 0.7**0.5) ** 0.5)


def test_drops_are_bars(catalog):
    [trace] = catalog.plot.drops().data
    assert (trace.x, trace.y) == ((80, 20), ("gopher.words (quality)", "an example (quality)"))
    assert (trace.text, trace.customdata) == (
        ("80  40%", "20  10%"),
        ("600 characters", "400 characters"),
    )


def test_losses_have_a_line_per_run_and_a_panel_per_set(catalog):
    figure = catalog.plot.losses()
    assert [(t.name, t.xaxis) for t in figure.data] == [
        ("dga", "x"),
        ("natural", "x"),
        ("dga", "x2"),
        ("natural", "x2"),
    ]
    assert figure.data[1].x == (0, 4000, 8000, 12000, 16000, 20000)
    assert figure.data[1].y == (6.0, 5.0, 4.5, 4.0, 3.75, 3.5)
    assert figure.layout.yaxis.range == pytest.approx(
        (1.88, 5.12)
    )  # without what was measured before the first step
    assert figure.data[0].error_y.array is None  # these runs say none


def test_errors_are_bars(catalog, folder):
    run = write_run(folder / "with errors", basis=("law",), losses=(3.0, 2.0))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind": "eval", "step": 10, "tokens": 4000, "set": "mmlu", '
            '"loss": 2.5, "error": 0.25}\n'
        )
    [trace] = data_catalog.open(catalog.root, runs=[run]).plot.losses("mmlu").data
    assert (trace.y, trace.error_y.array, trace.customdata) == ((2.5,), (0.25,), ("0.25",))


def test_weights_are_stacked_with_effective_numbers_below(catalog):
    figure = catalog.plot.weights("dga")
    law, *_, domains, members = figure.data
    assert law.name == "law"
    assert law.x == (0, 4000, 8000, 12000, 16000, 20000)  # steps: the last weight holds to the end
    assert sum(np.array(t.y) for t in figure.data if t.stackgroup) == pytest.approx(np.ones(6))
    assert (members.name, members.y[0]) == ("effective members", pytest.approx(3))
    # Alike weights of law (all in domain 1), natural (10, 20, 30, 40 %) and uniform.
    mixed = (np.array([0, 1, 0, 0]) + np.array([0.1, 0.2, 0.3, 0.4]) + 0.25) / 3
    assert (domains.name, domains.y[0]) == (
        "effective domains",
        pytest.approx(np.exp(-(mixed * np.log(mixed)).sum())),
    )
    assert catalog.plot.weights("natural").data[0].y == (1.0,) * 6


def test_many_members_share_a_few_bands(catalog, folder):
    """Domains with the largest weight have a band each, and the rest share one."""
    basis = [str(i % 4) if i < 4 else f"x{i}" for i in range(40)]
    run = write_run(folder / "of domains", basis=basis, mixture={"basis": "domains"})
    figure = data_catalog.open(catalog.root, runs=[run]).plot.weights()
    bands = [t.name for t in figure.data if t.stackgroup]
    assert (len(bands), bands[0], bands[-1]) == (12, "0 tensor, layer", "29 others")
    assert figure.data[-2].y == figure.data[-1].y  # its members are its domains


def test_scores_have_their_errors(catalog):
    law, natural = catalog.plot.scores("dga").data
    assert (law.name, law.x, law.y, law.error_y.array) == (
        "law",
        (10, 20),
        (0.5, 0.5),
        (0.125, 0.125),
    )
    assert (natural.y, natural.error_y.array, natural.customdata) == (
        (0.25, 0.5),
        None,
        ("unknown", "unknown"),
    )
    assert "no measurements" in catalog.plot.scores("natural").layout.annotations[0].text


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda plot: plot.treemap(3), r"level 3: .*\[2, 4\]"),
        (lambda plot: plot.treemap(colour="lav"), "colour 'lav': .*Did you mean law"),
        (lambda plot: plot.map(kind="soft"), "kind 'soft': .*'hard' .*'distance'"),
        (lambda plot: plot.overlaps(measure="cosine"), "measure 'cosine': .*overlap"),
        (lambda plot: plot.weights(), "run: .* dga, natural"),
        (lambda plot: plot.scores("dgaa"), "run 'dgaa': .*Did you mean dga"),
        (
            lambda plot: plot.losses(["target/tets"]),
            "held_out target/tets: .*target/test",
        ),
    ],
)
def test_unknown_names_are_user_errors(catalog, draw, message):
    with pytest.raises(UserError, match=message):
        draw(catalog.plot)


def test_without_runs_and_without_plotly(catalog, monkeypatch):
    with pytest.raises(UserError, match=r"query: the view metrics .* runs"):
        data_catalog.open(catalog.root).plot.losses()
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(UserError, match=r"plotly .*pip install 'clustermix\[notebook\]'"):
        catalog.plot.treemap()


def test_a_catalog_without_anything_to_draw(tmp_path):
    catalog = data_catalog.open(
        write_domains_catalog(tmp_path / "empty", tokens=(0, 0, 0, 1), top=2)
    )
    assert catalog.plot.treemap().data[0].ids == ("all", "2/1", "4/3")
    assert catalog.plot.domain_sizes().data[1].y == (1,)


def test_4096_domains_are_drawn(tmp_path):
    catalog = data_catalog.open(
        write_domains_catalog(tmp_path / "large", tokens=(7,) * 4096, top=64)
    )
    figures = [
        catalog.plot.treemap(colour="law"),
        catalog.plot.map(),
        catalog.plot.distributions(4096),
        catalog.plot.domain_sizes(),
    ]
    assert [
        len(figure.data[0][name])
        for figure, name in zip(figures, ("ids", "x", "x", "x"), strict=True)
    ] == [4161, 4096, 4096, 64]
    assert max(len(figure.to_json()) for figure in figures) < 1_000_000


def test_more_domains_are_refused(catalog, monkeypatch):
    monkeypatch.setattr("data_catalog.plot.look.MAXIMUM_DRAWN_DOMAINS", 3)
    with pytest.raises(UserError, match=r"level 4: .* 3\. .*\[2\]"):
        catalog.plot.distributions(4)
    assert catalog.plot.treemap().data[0].ids == ("all", "2/0", "2/1")


def test_numbers_for_a_reader():
    assert [format_share(v) for v in (0, 1, 0.5, 0.1234, 0.0123, 0.0001234)] == [
        "0%",
        "100%",
        "50%",
        "12.3%",
        "1.2%",
        "0.012%",
    ]
    assert [format_count(v) for v in (0, 12, 1234, 12_345, 12_345_678)] == [
        "0",
        "12",
        "1,234",
        "12.3k",
        "12.3M",
    ]
    assert len({str(line_style(i)) for i in range(32)}) == 32


def test_figures_are_not_sent_to_anyone(catalog):
    assert catalog.plot.drops().layout.modebar.remove == ("sendChartToCloud",)
