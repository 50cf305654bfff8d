"""Default settings of Prefect: the user's own settings are kept."""

import os
from unittest.mock import patch

from flows.environment import prepare


def test_settings_of_the_user_are_kept(tmp_path):
    with patch.dict(
        os.environ,
        {"HOME": str(tmp_path), "PREFECT_API_URL": "https://api.example/api", "DO_NOT_TRACK": "0"},
        clear=True,
    ):
        prepare()
        found = dict(os.environ)
    assert found["PREFECT_API_URL"] == "https://api.example/api"
    assert found["DO_NOT_TRACK"] == "0"
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "PREFECT_PROFILES_PATH" not in found


def test_prefect_profiles_are_read_from_their_default_place(
    tmp_path,
):
    (tmp_path / ".prefect").mkdir()
    profiles = tmp_path / ".prefect" / "profiles.toml"
    profiles.write_text('active = "cloud"\n')
    with patch.dict(os.environ, {"HOME": str(tmp_path)}, clear=True):
        prepare()
        assert os.environ["PREFECT_PROFILES_PATH"] == str(profiles)
    with patch.dict(os.environ, {"HOME": str(tmp_path), "PREFECT_HOME": "elsewhere"}, clear=True):
        prepare()
        assert "PREFECT_PROFILES_PATH" not in os.environ


def test_prefect_knows_all_settings_and_does_not_round_them(tmp_path):
    """Prefect truncates some settings to integers, so that a fraction would become 0."""
    from prefect.settings import Settings

    with patch.dict(os.environ, {"HOME": str(tmp_path)}, clear=True):
        prepare()
        ours = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
        read = Settings().to_environment_variables(exclude_unset=True)
    assert ours.keys() <= read.keys()
    numbers = [float(read[name]) for name, value in ours.items() if value[0].isdigit()]
    assert len(numbers) == 4
    assert all(number >= 1 and number == int(number) for number in numbers)
