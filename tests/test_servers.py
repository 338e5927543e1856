"""The servers that other tests rely on do what those tests believe of them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

from tests.support.servers import s3


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, b""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x").write_bytes(b"0123456789")
    return tmp_path / "served"


def test_python_serves_whole_values_and_ignores_range(http_server, folder):
    url = http_server(folder)
    assert fetch(f"{url}/x", Range="bytes=2-4") == (200, b"0123456789")
    assert fetch(f"{url}/y") == (404, b"")


def test_nginx_serves_ranges_and_fails_where_it_is_told(nginx, folder):
    server = nginx(
        folder, "location /no { return 403; } location /broken { return 500; } location /cut { return 444; }"
    )
    assert fetch(f"{server.url}/x", Range="bytes=2-4") == (206, b"234")
    assert [fetch(f"{server.url}{path}")[0] for path in ("/y", "/no", "/broken")] == [404, 403, 500]
    with pytest.raises((http.client.RemoteDisconnected, urllib.error.URLError)):
        fetch(f"{server.url}/cut")
    assert len(server.log()) == 5


def test_the_proxy_counts_slows_refuses_and_cuts(http_server, proxy, folder):
    through = proxy(http_server(folder))
    assert fetch(f"{through.url}/x") == (200, b"0123456789")
    through.fail(503, "x", times=1)
    assert [fetch(f"{through.url}/x")[0] for _ in range(2)] == [503, 200]
    through.cut(4, "x")
    with pytest.raises(http.client.IncompleteRead) as caught:
        fetch(f"{through.url}/x")
    assert caught.value.partial == b"0123"
    through.heal()
    request = urllib.request.Request(f"{through.url}/x", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Length"] == "10"
    assert through.counts == {"GET": 4, "HEAD": 1}
    assert through.busiest == 1


def test_s3_counts_every_request_of_a_client(s3_bucket, s3_counted):
    server, proxy = s3_counted
    client = server.client()
    client.put_object(Bucket=s3_bucket, Key="a/b", Body=b"value")
    assert client.get_object(Bucket=s3_bucket, Key="a/b")["Body"].read() == b"value"
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=s3_bucket, Key="a")
    client.close()
    assert proxy.counts == {"PUT": 1, "GET": 2}


def test_an_s3_server_that_answers_late_is_not_ended(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(s3, "FOLDER", tmp_path)
    monkeypatch.setattr(s3, "_PATIENCE", 0.05)
    monkeypatch.setattr(s3, "_stop", lambda: ended.append(True))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        endpoint = f"http://127.0.0.1:{busy.getsockname()[1]}"
        (tmp_path / "server.json").write_text(json.dumps({"endpoint": endpoint}))
        answered = []

        def answer() -> None:
            first, _ = busy.accept()  # gets no answer
            while not answered:
                asked, _ = busy.accept()
                with asked:
                    if asked.recv(1000):  # nothing comes from one who only looks whether somebody listens
                        asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        answered.append(True)
            first.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert s3._find() == s3.S3Server(endpoint)
        thread.join()
    assert ended == []
    assert s3._find() is None
    assert ended == [True]
