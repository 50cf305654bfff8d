import os

import pytest

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path, foreign_names


def test_hidden_files_and_logs_are_not_foreign(tmp_path):
    assert foreign_names(tmp_path / "none") == []
    for name in ("slurm-1.out", "nohup.out", "job.err", "a.log", ".lock", "z.txt", "b.py"):
        (tmp_path / name).touch()
    (tmp_path / "logs.log").mkdir()
    assert foreign_names(tmp_path) == ["b.py", "logs.log", "z.txt"]


def test_the_real_path_must_be_utf_8(tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (tmp_path / "link").symlink_to(odd)
    check_utf8_path(tmp_path / "café", "out")
    for folder in (odd, odd / "none", tmp_path / "link" / "x"):
        with pytest.raises(UserError, match=r"^out .*/caf\\xe9.*: this path is not UTF-8"):
            check_utf8_path(folder, "out")
