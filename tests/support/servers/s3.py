"""A real S3 server on loopback: Ceph's gateway over one monitor and one object daemon that keeps its data in memory.

::

    python tests/support/servers/s3.py up     start it, or find it up; it stays up until it is brought down
    python tests/support/servers/s3.py down   stop it, now or when the last session that uses it leaves
    python tests/support/servers/s3.py env    what a client needs, as export lines

Test sessions share one server: `session` starts it if nobody did, and the last session to leave stops it, unless it
was brought up by hand. Up in about 2 s. For tests only: the daemons trust each other, and nothing survives them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.support import peers
from tests.support.servers.static import free_port
from zarrstore.urls import fits_xml

FOLDER = Path(os.environ.get("ZARRSTORE_S3_DIR") or Path(tempfile.gettempdir(), f"zarrstore-s3-{os.getuid()}"))
KEY = "zarrstore"
SECRET = "only-for-tests"

_CONF = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
setuser match path =
run dir = {folder}/run
pid file = {folder}/run/$name.pid
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
mon cluster log file = {folder}/log/cluster.log
mon data avail warn = 1
mon data avail crit = 1
mon allow pool size one = true
mon max pg per osd = 2000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# A change of the cluster is decided at once: radosgw makes six pools at its start, and each waited 2 s for others.
paxos propose interval = 0.01
paxos min wait = 0.01
# By default they keep the words of level 5 in memory, in case they crash: a fifth of their processor time.
debug rgw = 0/0
debug ms = 0/0
debug osd = 0/0
debug objecter = 0/0
debug objclass = 0/0
osd enable op tracker = false

[mon.a]
mon data = {folder}/mon
mon addr = 127.0.0.1:{mon_port}

[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd class load list = *
osd class default list = *

[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw thread pool size = 32
rgw relaxed region enforcement = true
rgw dynamic resharding = false
rgw run sync thread = false
rgw enable usage log = false
rgw enable ops log = false
# The index of a bucket is one object instead of eleven, each of which is asked for a listing.
rgw override bucket index max shards = 1
"""


@dataclass(frozen=True)
class S3Server:
    """Where it is and how to get in. `at` gives the same server behind a proxy's URL."""

    endpoint: str
    key: str = KEY
    secret: str = SECRET

    def at(self, url: str) -> S3Server:
        """Return the same server, reached through `url`."""
        return S3Server(url, self.key, self.secret)

    def storage_options(self, **more: Any) -> dict[str, Any]:
        """Return what s3fs wants, as fsspec's ``storage_options``."""
        client = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        return {"key": self.key, "secret": self.secret, "client_kwargs": client} | more

    def environment(self) -> dict[str, str]:
        """Return the variables that boto, the aws command, obstore and opendal read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            # This gateway is older than the checksums that clients add of late.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client(self) -> Any:
        """Return a plain botocore client."""
        import botocore.config
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
            ),
        )

    def make_bucket(self) -> str:
        """Create a bucket of a name never used before."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        _keeper(self).create_bucket(Bucket=name)
        return name

    def drop_bucket(self, name: str) -> None:
        """Remove a bucket and all that is in it."""
        client = _keeper(self)
        for attempt in range(10):
            try:
                self._empty_bucket(client, name)
                client.delete_bucket(Bucket=name)
                return
            except client.exceptions.NoSuchBucket:
                return
            except client.exceptions.ClientError:
                # A write that the test gave up on may still end.
                if attempt == 9:
                    raise
                time.sleep(0.5)

    @staticmethod
    def _empty_bucket(client: Any, name: str) -> None:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
            marks = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            # Names that XML cannot say are deleted one by one: one of them would have the whole request refused.
            objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in marks]
            nameable = [item for item in objects if fits_xml(item["Key"])]
            if nameable:
                client.delete_objects(Bucket=name, Delete={"Objects": nameable, "Quiet": True})
            for item in objects:
                if not fits_xml(item["Key"]):
                    client.delete_object(Bucket=name, **item)
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])


@functools.cache
def _keeper(server: S3Server) -> Any:
    """Return the one client of this process that makes and drops buckets: a client costs 0.1 s."""
    return server.client()


@contextlib.contextmanager
def session() -> Iterator[S3Server]:
    """Use the server, starting it if it is not up; the last to leave stops it."""
    peers.require("s3")
    _share_models()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with open(FOLDER / "users.lock", "w") as users:
        with _door():
            server = _find() or _start()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield server
        finally:
            with _door():
                fcntl.flock(users, fcntl.LOCK_UN)
                if not (FOLDER / "keep").exists():
                    _stop_if_unused(users)


@functools.cache
def _share_models() -> None:
    """Let all clients of this process share what botocore reads of S3 from JSON: each takes 0.2 s for it."""
    import botocore.session

    botocore.session.create_loader = functools.cache(botocore.session.create_loader)


def collect_garbage() -> None:
    """Free the memory of deleted values now: what is behind their first 4 MiB waits two hours for that otherwise."""
    conf = str(FOLDER / "data" / "ceph.conf")
    _run("radosgw-admin", "-c", conf, "-n", "client.rgw", "gc", "process", "--include-all")


def up() -> S3Server:
    """Start the server, or find it up; sessions leave it up."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with _door():
        server = _find() or _start()
        (FOLDER / "keep").touch()
        return server


def down() -> None:
    """Stop the server, or leave that to the last session that uses it."""
    if FOLDER.exists():
        with _door(), open(FOLDER / "users.lock", "w") as users:
            (FOLDER / "keep").unlink(missing_ok=True)
            _stop_if_unused(users)


def _stop_if_unused(users: IO[str]) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _stop()


@contextlib.contextmanager
def _door() -> Iterator[None]:
    """Only one at a time starts or stops."""
    with open(FOLDER / "door.lock", "w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def _find() -> S3Server | None:
    try:
        endpoint = json.loads((FOLDER / "server.json").read_text())["endpoint"]
    except FileNotFoundError:
        return None
    # A busy machine lets it answer late: it is dead where nothing listens, and to end it fails who uses it meanwhile.
    for _ in range(20):
        if _answers(endpoint):
            return S3Server(endpoint)
        if not _listens(endpoint):
            break
    _stop()
    return None


_PATIENCE = 5.0  # seconds that one question waits for its answer


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint + "/", timeout=_PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False


def _listens(endpoint: str) -> bool:
    address = urllib.parse.urlsplit(endpoint)
    try:
        socket.create_connection((address.hostname, address.port), _PATIENCE).close()
    except ConnectionRefusedError:
        return False
    except OSError:  # its queue is full, or the machine is busy
        pass
    return True


def _start() -> S3Server:
    for _ in range(2):
        try:
            return _start_once()
        except (AssertionError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            problem = exc
            _stop()
    raise AssertionError(f"the S3 server did not start: {problem}") from problem


def _start_once() -> S3Server:
    data = FOLDER / "data"
    shutil.rmtree(data, ignore_errors=True)
    for name in ("mon", "osd", "run", "log", "rgw"):
        (data / name).mkdir(parents=True)
    port, mon_port, fsid = free_port(), free_port(), str(uuid.uuid4())
    conf = data / "ceph.conf"
    conf.write_text(_CONF.format(folder=data, port=port, mon_port=mon_port, fsid=fsid))
    monmap = str(data / "monmap")
    address = f"[v1:127.0.0.1:{mon_port}]"
    _run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap)
    _run("ceph-mon", "-c", str(conf), "-i", "a", "--mkfs", "--monmap", monmap)
    _run("ceph-mon", "-c", str(conf), "-i", "a")
    osd = str(uuid.uuid4())
    _run("ceph", "-c", str(conf), "osd", "new", osd)
    _run("ceph-osd", "-c", str(conf), "-i", "0", "--mkfs", "--osd-uuid", osd)
    _again("ceph-osd", "-c", str(conf), "-i", "0")
    _run("radosgw", "-c", str(conf), "-n", "client.rgw")
    endpoint = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while not _answers(endpoint):
        assert time.monotonic() < until, f"radosgw does not answer; its log: {data / 'log'}"
        time.sleep(0.2)
    _run(
        *("radosgw-admin", "-c", str(conf), "-n", "client.rgw", "user", "create", "--uid=test", "--display-name=test"),
        *(f"--access-key={KEY}", f"--secret-key={SECRET}"),
    )
    (FOLDER / "server.json").write_text(json.dumps({"endpoint": endpoint}))
    return S3Server(endpoint)


def _run(command: str, *arguments: str) -> None:
    # Output goes to a file: a daemon that holds a pipe open would keep us waiting for its end.
    with open(FOLDER / "data" / "log" / "start.log", "ab") as log:
        subprocess.run(
            [peers._which(command) or command, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=90,
        )


def _again(command: str, *arguments: str) -> None:
    # A fresh object daemon gives up now and then at its first start, while the monitor still settles.
    for _ in range(4):
        with contextlib.suppress(subprocess.CalledProcessError):
            return _run(command, *arguments)
        time.sleep(1)
    return _run(command, *arguments)


def _stop() -> None:
    for file in (FOLDER / "data" / "run").glob("*.pid"):
        with contextlib.suppress(ValueError, OSError):
            _end(int(file.read_text()))
    shutil.rmtree(FOLDER / "data", ignore_errors=True)
    (FOLDER / "server.json").unlink(missing_ok=True)


def _end(process: int) -> None:
    running = Path(f"/proc/{process}/cmdline")
    # The number may have been given to somebody else meanwhile: it is ours if it runs on our folder.
    if os.fsencode(FOLDER) not in running.read_bytes():
        return
    # Not asked first: there is nothing to save, and asked one by one they wait for each other.
    os.kill(process, signal.SIGKILL)
    until = time.monotonic() + 10
    while time.monotonic() < until and running.exists() and running.read_bytes():
        time.sleep(0.02)


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb == "up":
        print(up().endpoint)
    elif verb == "down":
        down()
    elif verb == "hold":
        with session():
            sys.stdin.read()
    elif verb == "env" and FOLDER.exists() and (server := _find()):
        print("\n".join(f"export {name}={value}" for name, value in server.environment().items()))
    else:
        sys.exit("up, down, env (while it is up), or hold (until the standard input ends)")
