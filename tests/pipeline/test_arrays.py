import numpy as np
import pytest

from pipeline.arrays import ArrayFile, begin_array


def test_rows_of_an_array_file_are_read_as_numpy_reads_them(tmp_path):
    x = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.save(tmp_path / "a.npy", x)
    with (tmp_path / "b.npy").open("wb") as file:
        begin_array(file, x.shape)
        file.write(x.tobytes())
    for name in ("a.npy", "b.npy"):
        array = ArrayFile.find(tmp_path / name)
        assert (len(array), array.shape) == (4, (4, 3))
        assert array[np.array([0, 3])].tolist() == [[0, 1, 2], [9, 10, 11]]
        assert array.map().tolist() == x.tolist()


def test_a_file_without_rows_can_be_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 3), np.float16))
    assert ArrayFile.find(tmp_path / "a.npy").map().shape == (0, 3)


@pytest.mark.parametrize("x", [np.zeros((2, 3), np.float32), np.zeros(2, np.float16)])
def test_another_kind_of_array_is_refused(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(ValueError, match=r"a\.npy"):
        ArrayFile.find(tmp_path / "a.npy")
