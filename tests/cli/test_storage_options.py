"""What the command line says of storage options that a filesystem refuses, and of places that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import each_of
from zarrstore import FSStore, ZipStore, copy_store
from zarrstore.cli.group import run

pytest.importorskip("s3fs", reason="needs s3fs: pip install s3fs")


@each_of(
    "options, sentences",
    [
        # What was asked, what stands in the way, the way out.
        (["endpoint=x"], ["cannot open 's3://bucket", "storage option 'endpoint'", "did you mean endpoint_url?"]),
        (["foo=1"], ["storage option 'foo'", "leave it out, or name one of anon, "]),
        (['client_kwargs={"foo": 1}'], ["'foo' in the storage option 'client_kwargs'", "leave it out"]),
    ],
)
def test_an_option_that_is_none_is_named_in_plain_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], sentences: list[str]
) -> None:
    given = [word for option in options for word in ("--storage-option", option)]
    (tmp_path / "value").write_bytes(b"1")
    for arguments in (["ls", "s3://bucket/x"], ["put", "s3://bucket/x", "key", str(tmp_path / "value")]):
        assert run([*arguments, *given, "--storage-option", "key=a", "--storage-option", "secret=b"]) == 3
        output = capsys.readouterr().err
        for sentence in sentences:
            assert sentence in output
        assert "keyword" not in output
        assert "__init__" not in output


def test_the_library_raises_the_same_as_a_value_error() -> None:
    store = FSStore("s3://bucket/x", key="a", secret="b", endpoint="x")
    with pytest.raises(ValueError, match="did you mean endpoint_url"):
        store["key"]
    with pytest.raises(ValueError, match="did you mean endpoint_url"):
        store["key"] = b"1"
    with pytest.raises(ValueError, match="without the storage option 'base_url'"):
        FSStore("webdav://x")


def test_a_package_that_lacks_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")
    fsspec.register_implementation(
        "nowhere", "no_such_package.FS", clobber=True, errtxt="Please install no_such_package"
    )
    assert run(["ls", "nowhere://bucket/x"]) == 3
    output = capsys.readouterr().err
    assert "needs a package that is not installed" in output
    assert "Please install no_such_package" in output
    assert "foreseen" not in output


def test_a_file_at_a_url_cannot_be_written_and_the_way_out_is_said(
    capsys: pytest.CaptureFixture[str], nginx: object, tmp_path: Path
) -> None:
    with ZipStore(tmp_path / "x.zip", mode="w") as archive:
        archive["a"] = b"1"
    url = f"{nginx(tmp_path).url}/x.zip"  # type: ignore[operator]
    assert run(["put", url, "new", str(tmp_path / "x.zip")]) == 3
    output = capsys.readouterr().err
    assert f"{url} cannot be written; change a local copy, then upload that" in output


def test_notes_of_what_cannot_be_listed_name_the_url_and_no_class(
    capsys: pytest.CaptureFixture[str], nginx: object, tmp_path: Path
) -> None:
    store = {".zmetadata": b'{"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}}}'}
    copy_store(store, str(tmp_path / "x.zarr"))
    url = f"{nginx(tmp_path).url}/x.zarr"  # type: ignore[operator]
    assert run(["sync", "-v", url, str(tmp_path / "copy")]) == 0
    output = capsys.readouterr()
    assert f"note: {url} cannot be listed" in output.err
    assert "Store(" not in output.err + output.out
