import numpy as np

from pipeline.cluster.checkpoint import KmeansCheckpoint, read_arrays


def test_a_checkpoint_is_read_as_written_and_replaced(tmp_path):
    checkpoint = KmeansCheckpoint(tmp_path / "c.npz")
    assert checkpoint.read() is None
    for done in (1, 2):
        checkpoint.write(done, np.full((2, 3), done, np.float32))
        found, centroids = checkpoint.read()
        assert (found, centroids.tolist(), centroids.dtype) == (done, [[done] * 3] * 2, np.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def test_a_broken_checkpoint_is_ignored(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 cut short")
    assert KmeansCheckpoint(tmp_path / "c.npz").read() is None
    assert read_arrays(tmp_path / "c.npz") is None
