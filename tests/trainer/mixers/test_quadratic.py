"""The rate at which DGA converges on a quadratic problem is the predicted one."""

import pytest

from benchmarks.quadratic import Setting, measured_rate, predicted_rate


@pytest.mark.parametrize(
    ("setting", "stable"),
    [
        (Setting(eta=0.1, ema=0.1, pull=0.0, every_steps=30), True),
        (Setting(eta=0.1, ema=1.0, pull=0.3, every_steps=100), True),
        (Setting(eta=2.0, ema=0.1, pull=0.0, every_steps=30), False),
        (Setting(eta=2.0, ema=0.1, pull=0.3, every_steps=30), True),
    ],
)
def test_the_measured_rate_is_the_predicted_one(setting, stable):
    predicted = predicted_rate(setting)
    assert (predicted < 0) == stable
    assert measured_rate(setting) == pytest.approx(predicted, rel=0.03)
