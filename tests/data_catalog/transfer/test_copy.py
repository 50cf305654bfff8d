"""Catalogs are copied whole or not at all: in memory, to folders and to a local S3 server."""

import json
import re
import shutil
import uuid
from contextlib import contextmanager
from itertools import count

import fsspec
import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.manifest import read_manifest
from data_catalog.place import Place
from data_catalog.transfer.copy import UNFINISHED_MANIFEST, export_catalog, fetch_catalog
from data_catalog.verify import check
from tests.helpers.manifests import change_manifest


@pytest.fixture
def catalog(built, tmp_path):
    shutil.copytree(
        built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work", "report.html")
    )
    return tmp_path / "catalog"


@pytest.fixture
def store():
    """An empty place in memory."""
    return f"memory://{uuid.uuid4().hex}/catalog"


@pytest.fixture(scope="module")
def s3(request):
    """Yield a bucket on a local S3 server. Address and keys are in the environment."""
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("s3fs")
    patch = pytest.MonkeyPatch()
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in {**settings, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        patch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("corpora")
    yield "s3://corpora"
    server.stop()
    patch.undo()


def files_below(root):
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def system_and_base(url):
    system, base = fsspec.core.url_to_fs(url)
    return system, base


def test_there_and_back_again_is_the_same_catalog(catalog, store, tmp_path):
    seen = []
    sent = export_catalog(catalog, store, on_file=lambda *progress: seen.append(progress))
    names = read_manifest(catalog).files
    assert (sent.files, sent.copied, sent.version) == (len(names), len(names), 1)
    assert (
        seen[-1]
        == (len(names), len(names), sum(file.bytes for file in names.values()))
        == (sent.files, sent.copied, sent.bytes)
    )
    came = fetch_catalog(store, tmp_path / "here")
    assert (came.copied, came.left_out) == (len(names), ())
    assert check(tmp_path / "here").faults == ()
    assert files_below(tmp_path / "here") == files_below(catalog)  # catalog.duckdb was made anew
    assert data_catalog.open(tmp_path / "here").sql(
        "SELECT count(*) FROM documents"
    ).fetchall() == [(160,)]


def test_existing_files_are_not_sent_again(catalog, store, tmp_path):
    export_catalog(catalog, store)
    assert export_catalog(catalog, store).copied == 0
    fetch_catalog(store, tmp_path / "here")
    (tmp_path / "here" / "versions" / "0001" / "domains.parquet").write_bytes(b"damaged")
    assert fetch_catalog(store, tmp_path / "here").copied == 1
    assert check(tmp_path / "here").faults == ()


@contextmanager
def cut_after(files):
    """Break the connection for good after a number of files."""
    passed = count()

    def breaking(real):
        def move(*arguments):
            if next(passed) >= files:
                raise UserError("Cut")
            real(*arguments)

        return move

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "upload", breaking(Place.upload))
        patch.setattr(Place, "download", breaking(Place.download))
        yield


def test_an_interrupted_export_is_not_a_catalog_and_resumes(catalog, store, tmp_path):
    with cut_after(3), pytest.raises(UserError, match="Cut"):
        export_catalog(catalog, store)
    system, base = system_and_base(store)
    there = system.find(base)
    assert f"{base}/{UNFINISHED_MANIFEST}" in there
    assert f"{base}/catalog.json" not in there
    with pytest.raises(UserError, match=rf"{re.escape(store)}: .*catalog\.json"):
        fetch_catalog(store, tmp_path / "here")
    again = export_catalog(catalog, store)
    assert again.copied == again.files - 3
    assert f"{base}/{UNFINISHED_MANIFEST}" not in system.find(base)
    assert fetch_catalog(store, tmp_path / "here").copied == again.files


def test_an_interrupted_fetch_resumes(catalog, store, tmp_path):
    export_catalog(catalog, store)
    with cut_after(3), pytest.raises(UserError, match="Cut"):
        fetch_catalog(store, tmp_path / "here")
    with pytest.raises(UserError, match=rf"{tmp_path / 'here'}: .*catalog\.json"):
        read_manifest(tmp_path / "here")
    again = fetch_catalog(store, tmp_path / "here")
    assert again.copied == again.files - 3
    assert check(tmp_path / "here").faults == ()


def test_a_catalog_can_be_exported_to_a_folder_with_views(catalog, tmp_path):
    export_catalog(catalog, str(tmp_path / "disk" / "catalog"))
    assert check(tmp_path / "disk" / "catalog").faults == ()
    assert (tmp_path / "disk" / "catalog" / "catalog.duckdb").is_file()
    assert not (tmp_path / "disk" / "catalog" / UNFINISHED_MANIFEST).exists()


def test_a_trainer_fetches_no_documents(catalog, store, tmp_path):
    export_catalog(catalog, store)
    here = tmp_path / "here"
    came = fetch_catalog(store, here, without=["documents", "signals", "verdicts"])
    assert came.left_out == ("documents", "signals", "verdicts")
    assert not (here / "documents").exists()
    report = check(here)
    assert (report.faults, report.left_out) == ((), came.left_out)
    from data_catalog.format.tokens import open_target, open_tokens

    opened = data_catalog.open(here)
    assert open_tokens(open_files(here), "train").sequences(16).sum() > 0
    open_target(open_files(here), "space", "align")
    assert opened.sql("SELECT count(*) FROM domains").fetchall() == [(6,)]
    for query, part in (
        ("FROM documents", "documents"),
        ("FROM domain_docs(4, 0)", "documents"),
        ("FROM rules", "verdicts"),
    ):
        with pytest.raises(
            UserError,
            match=rf"query: .* {part}.*`clustermix fetch catalog`",
        ):
            opened.table(query)
    with pytest.raises(UserError, match="documents"):
        opened.domain(4, 0)
    with pytest.raises(UserError, match="without documents, signals, verdicts"):
        export_catalog(here, store)
    assert fetch_catalog(store, here).copied > 0
    assert check(here).faults == ()
    assert data_catalog.open(here).sql("SELECT count(*) FROM documents").fetchall() == [(160,)]


def test_a_catalog_without_tokens_can_be_queried_and_not_trained_on(catalog, store, tmp_path):
    export_catalog(catalog, store)
    fetch_catalog(store, tmp_path / "here", without=["tokens"])
    opened = data_catalog.open(tmp_path / "here")
    assert opened.sql("SELECT count(*) FROM documents").fetchall() == [(160,)]
    from data_catalog.format.tokens import open_tokens

    with pytest.raises(UserError, match="tokens"):
        open_tokens(open_files(tmp_path / "here"), "train")
    with pytest.raises(
        UserError,
        match=r"without tree: .* documents, tokens, signals, verdicts",
    ):
        fetch_catalog(store, tmp_path / "other", without=["tree"])


def test_a_damaged_catalog_is_not_copied(catalog, store, tmp_path):
    path = catalog / "versions" / "0001" / "domains.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"?")
    with pytest.raises(UserError, match=r"versions/0001/domains\.parquet"):
        export_catalog(catalog, store)
    path.write_bytes(good[:-1])
    with pytest.raises(UserError, match=r"versions/0001/domains\.parquet"):
        export_catalog(catalog, store)
    path.write_bytes(good)
    export_catalog(catalog, store)
    system, base = system_and_base(store)
    system.pipe_file(f"{base}/versions/0001/domains.parquet", good[:-1] + b"?")
    with pytest.raises(UserError, match=rf"{re.escape(store)}: versions/0001/domains\.parquet"):
        fetch_catalog(store, tmp_path / "here")
    assert not (tmp_path / "here" / "versions" / "0001" / "domains.parquet").exists()


def test_another_catalog_is_left_alone(catalog, store, tmp_path):
    export_catalog(catalog, store)
    for folder in (catalog, catalog / "versions" / "0001"):
        change_manifest(folder, fingerprint="other")
    with pytest.raises(UserError, match=f"{re.escape(store)}: .*another catalog"):
        export_catalog(catalog, store)
    with pytest.raises(UserError, match=f"{catalog}: .*another catalog than {re.escape(store)}"):
        fetch_catalog(store, catalog)
    system, base = system_and_base(store)
    system.rm_file(f"{base}/catalog.json")
    with pytest.raises(UserError, match=f"{re.escape(store)}: .*unknown catalog"):
        export_catalog(catalog, store)
    (tmp_path / "begun" / "work").mkdir(parents=True)
    export_catalog(catalog, f"{store}2")
    with pytest.raises(UserError, match=r"begun: .*build"):
        fetch_catalog(f"{store}2", tmp_path / "begun")


@pytest.mark.parametrize(
    "name",
    [
        "../../secret",
        "/etc/passwd",
        "documents/../../secret",
        "catalog.duckdb",
        "work/x",
        ".git/hooks/post-checkout",
        "documents//x",
        "documents/a\\..\\b",
        "versions/0001/catalog.json",
        "documents/./x",
        "file://documents/x",
        "documents/\x00",
    ],
)
def test_a_manifest_with_paths_outside_the_catalog_is_refused(catalog, store, tmp_path, name):
    export_catalog(catalog, store)
    system, base = system_and_base(store)
    system.pipe_file(f"{base}/secret", b"secret")
    for place in (f"{base}/catalog.json", f"{base}/versions/0001/catalog.json"):
        manifest = json.loads(system.cat_file(place))
        manifest["files"][name] = {
            "bytes": 6,
            "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        }
        system.pipe_file(place, json.dumps(manifest).encode())
    with pytest.raises(UserError, match=r"catalog\.json: files"):
        fetch_catalog(store, tmp_path / "a" / "b" / "here")
    assert files_below(tmp_path / "a") == set() if (tmp_path / "a").exists() else True


def test_a_link_in_the_folder_is_not_followed_out_of_it(catalog, store, tmp_path):
    export_catalog(catalog, store)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "documents").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"here: documents/.*link"):
        fetch_catalog(store, tmp_path / "here")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_outside_the_catalog_are_not_exported(catalog, store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    change_manifest(catalog, files={"../secret": {"bytes": 6, "sha256": sha256}})
    with pytest.raises(UserError, match=r"files: .*\.\./secret"):
        export_catalog(catalog, store)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"no json", "JSON"),
        (b'{"format": 1}', "format"),
        (b'{"format": 2, "version": "1"}', "version"),
    ],
)
def test_invalid_manifests_are_user_errors(store, tmp_path, text, sentence):
    system, base = system_and_base(store)
    system.pipe_file(f"{base}/catalog.json", text)
    with pytest.raises(UserError, match=rf"{re.escape(store)}/catalog\.json: .*{sentence}"):
        fetch_catalog(store, tmp_path / "here")


def test_invalid_urls_are_user_errors(catalog, tmp_path):
    with pytest.raises(UserError, match="nosuch://x: "):
        export_catalog(catalog, "nosuch://x")
    with pytest.raises(UserError, match="version 7"):
        export_catalog(catalog, "memory://x", version=7)


def test_s3_there_and_back_again(s3, catalog, tmp_path):
    url = f"{s3}/catalogs/{uuid.uuid4().hex}"
    with cut_after(5), pytest.raises(UserError, match="Cut"):
        export_catalog(catalog, url)
    sent = export_catalog(catalog, url)
    assert sent.copied == sent.files - 5
    assert export_catalog(catalog, url).copied == 0
    assert fetch_catalog(url, tmp_path / "here").copied == sent.files
    assert check(tmp_path / "here").faults == ()


def test_a_missing_bucket_is_not_created(s3, catalog):
    with pytest.raises(UserError, match="s3://nosuch/catalog/"):
        export_catalog(catalog, "s3://nosuch/catalog")
    assert not fsspec.filesystem("s3").exists("nosuch")


def test_a_corpus_on_s3_is_built_as_one_on_disk(s3, built, tmp_path):
    from data_catalog.settings import parse
    from pipeline.config import Build
    from pipeline.run import build

    root, settings = built
    system = fsspec.filesystem("s3")
    for name in ("corpus", "target"):
        folder = root.parent / name
        for path in folder.iterdir():
            system.put_file(str(path), f"corpora/{name}/{path.name}")
    there = {
        **settings,
        "out": str(tmp_path / "catalog"),
        "source": {"kind": "jsonl", "path": f"{s3}/corpus"},
    }
    there["targets"] = [{"name": "space", "path": f"{s3}/target"}]
    made = build(parse(Build, there, "test"))
    assert read_manifest(made).files.keys() == read_manifest(root).files.keys()
    assert data_catalog.open(made).sql(
        "SELECT doc_id, leaf FROM documents ORDER BY doc_id"
    ).fetchall() == (
        data_catalog.open(root).sql("SELECT doc_id, leaf FROM documents ORDER BY doc_id").fetchall()
    )
