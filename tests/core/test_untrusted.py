"""Files of others: what is not run, what is not believed, and what the errors say."""

import gzip
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from sslcollapse.core.errors import DataError
from sslcollapse.core.untrusted import as_matrix, check_gzip, check_regular, read_arrays, unpickle

PROTOCOLS = range(2, 6)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1", "?", ">i4"])
def test_arrays_of_every_protocol_are_read_as_they_were_written(tmp_path, protocol, dtype):
    for array in (
        np.arange(6).reshape(2, 3).astype(dtype),
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
    ):
        assert np.array_equal(unpickle(write(tmp_path / "a", array, protocol)), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sparse_matrices_and_dicts_of_lists_are_read_as_they_were_written(tmp_path, protocol):
    matrix = sp.csr_matrix(np.diag([1.0, 0.0, 2.0]))
    read = as_matrix(unpickle(write(tmp_path / "a", matrix, protocol)), "a")
    assert np.array_equal(read.toarray(), matrix.toarray())
    links = defaultdict(list, {0: [1, 2], 1: [0]})
    assert unpickle(write(tmp_path / "b", links, protocol)) == dict(links)
    assert unpickle(write(tmp_path / "c", OrderedDict(links), protocol)) == dict(links)
    assert unpickle(write(tmp_path / "d", {"n": np.float32(1.5)}, protocol)) == {"n": 1.5}


def test_a_matrix_of_python_2_is_read(tmp_path):
    """Written as the published files are: old module names, bytes as text in latin-1."""

    def array(code: bytes, raw: bytes) -> bytes:
        kind = b"cnumpy\ndtype\n(S'" + code + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        return made + b"(I1\n(I2\nt" + kind + b"I00\nU" + bytes([len(raw)]) + raw + b"tb"

    parts = {b"data": (b"f4", np.array([2, 3], "<f4")), b"indices": (b"i4", np.array([1, 200], "<i4"))}
    body = b"".join(b"S'" + name + b"'\n" + array(code, values.tobytes()) for name, (code, values) in parts.items())
    body += b"S'indptr'\n" + array(b"i4", np.array([0, 2], "<i4").tobytes()) + b"S'_shape'\n(I1\nI201\nt"
    (tmp_path / "a").write_bytes(b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81}(" + body + b"ub.")
    matrix = as_matrix(unpickle(tmp_path / "a"), "a")
    assert matrix.shape == (1, 201)
    assert (matrix[0, 1], matrix[0, 200]) == (2.0, 3.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_in_a_pickle_is_refused_by_its_name_and_does_not_run(tmp_path, protocol):
    path = write(tmp_path / "evil", {"x": [Evil(tmp_path / "ran")]}, protocol)
    with pytest.raises(DataError, match=r"evil: refused: its pickle asks for (posix|nt|os)\.mkdir;.*nothing was run"):
        unpickle(path)
    assert not (tmp_path / "ran").exists()


def called(name: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02c" + name + b"\n" + arguments + b"R."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (called(b"builtins\nlist", b"]\x85"), "calls list"),
        (called(b"numpy\nndarray", b"J\x00\x00\x00\x7f\x85"), "calls numpy.ndarray"),
        (called(b"numpy\ndtype", b"X\x02\x00\x00\x00O8\x85"), "array of type 'O8'"),
        (
            called(
                b"numpy.core.numeric\n_frombuffer",
                b"(J\x00\x00\x00\x7fcnumpy\ndtype\nX\x02\x00\x00\x00f4\x85RK\x01\x85X\x01\x00\x00\x00Ct",
            ),
            "array of a int",
        ),
        (called(b"collections\nOrderedDict", b"]\x85"), "fills a dict"),
        (called(b"copy_reg\n_reconstructor", b"cbuiltins\nobject\n\x85"), "an object of a class of its own"),
        (b"\x80\x02ccollections\ndefaultdict\n}X\x04\x00\x00\x00makeNsb.", "changes defaultdict"),
        (b"\x80\x02cnumpy.core\x1b[2J\nx\n.", r"asks for numpy\.core\\x1b\[2J\.x"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "numbers an object 4,294,967,295"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "outside the file"),
    ],
)
def test_a_pickle_cannot_call_change_or_allocate(tmp_path, content, message):
    (tmp_path / "evil").write_bytes(content)
    with pytest.raises(DataError, match=message):
        unpickle(tmp_path / "evil")


def test_an_array_that_claims_more_than_its_bytes_is_not_allocated(tmp_path):
    array = pickle.dumps(np.arange(3, dtype="f4"), 2).replace(b"K\x03\x85", b"J\x00\x00\x00\x7f\x85")
    (tmp_path / "claims").write_bytes(array)
    with pytest.raises(ValueError, match="reshape"):
        unpickle(tmp_path / "claims")


def test_a_sparse_matrix_with_a_column_beyond_its_shape_is_refused(tmp_path):
    matrix = sp.csr_matrix(np.eye(3))
    matrix.indices[0] = 1000
    with pytest.raises(DataError, match="no sparse matrix"):
        as_matrix(unpickle(write(tmp_path / "a", matrix)), "a")


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros(10 * 2**20))
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with pytest.raises(DataError, match=r"bomb\.npz: [\d,]+ bytes that unpack to 83,886,[\d,]+ or more"):
        read_arrays(bomb(tmp_path / "bomb.npz"))


def test_a_gzip_bomb_is_refused_after_the_limit(tmp_path):
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        for _ in range(70):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match=r"a\.gz: .* that unpack to"):
        check_gzip(tmp_path / "a.gz")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_a_header_that_claims_8_terabytes_is_compared_with_the_file(tmp_path, name):
    def header(file):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
        file.write(bytes(80))

    if name == "a.npy":
        with open(tmp_path / name, "wb") as file:
            header(file)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive, archive.open("x.npy", "w") as member:
            header(member)
    with pytest.raises(ValueError, match=r"claims shape \(1000000000000,\) of float64, 8,000,000,000,000 bytes, and"):
        read_arrays(tmp_path / name)


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Evil(tmp_path / "ran")], dtype=object))
    with pytest.raises(DataError, match="array 'x': an array of Python objects"):
        read_arrays(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_ordinary_arrays_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(2), n=np.int64(3), empty=np.empty((0, 4)))
    read = read_arrays(tmp_path / "a.npz")
    assert {name: array.shape for name, array in read.items()} == {"x": (2, 2), "n": (), "empty": (0, 4)}
    np.save(tmp_path / "b.npy", np.eye(2))
    assert np.array_equal(read_arrays(tmp_path / "b.npy")[""], np.eye(2))


def test_a_pipe_a_socket_a_device_and_a_folder_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket may be no longer than 107 letters
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in (
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
            (".", "a fold"),
        ):
            with pytest.raises(DataError, match=f"{kind}.*not a regular file"):
                check_regular(Path(path))


def test_a_bomb_is_refused_within_the_memory_of_an_import(tmp_path):
    bomb(tmp_path / "bomb.npz")
    code = (
        "import sys, resource; from pathlib import Path; from sslcollapse.core.untrusted import read_arrays\n"
        "import numpy.lib.format, zipfile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_arrays(Path(sys.argv[1]))\n"
        "except ValueError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bomb.npz"], capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stderr  # kB; the bomb holds 80 MB
