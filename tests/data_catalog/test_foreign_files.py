from data_catalog.foreign_files import foreign_names


def test_hidden_files_and_logs_are_not_foreign(tmp_path):
    assert foreign_names(tmp_path / "none") == []
    for name in ("slurm-1.out", "nohup.out", "job.err", "a.log", ".lock", "z.txt", "b.py"):
        (tmp_path / name).touch()
    (tmp_path / "logs.log").mkdir()
    assert foreign_names(tmp_path) == ["b.py", "logs.log", "z.txt"]
