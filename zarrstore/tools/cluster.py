"""Before work goes to workers elsewhere: whether there are any, and whether they see the same stores."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import ClusterError
from zarrstore.threads import are_threads
from zarrstore.tools.executing import Task, run_ordered, threads_of
from zarrstore.values import sha256

__all__ = ["GO_ON", "PATIENCE", "check_workers", "failure", "is_of_cluster", "run_elsewhere", "travels"]

#: Seconds that the first task may take.
PATIENCE = 60.0
#: What is left by a copy that ended in the middle.
GO_ON = "what was copied is whole; go on with the same resume=, or with if_exists='skip' or 'differ'"
#: Packages whose errors tell of the cluster and not of a store.
_CLUSTERS = ("dask", "distributed", "loky", "mpi4py")
#: Bytes of a value that are compared.
_SAMPLE = 1 << 16


def travels(executor: Executor, store: Store) -> bool:
    """Tell whether the workers of an executor are elsewhere, and can list and read a store by themselves.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> from zarrstore.threads import Threads
    >>> travels(Threads(1), as_store({}))
    False
    """
    flags = store.capabilities
    if are_threads(executor) or not (flags.process_safe and flags.listable):
        return False
    import pickle  # most work needs no other process

    try:
        pickle.dumps(store)
    except Exception:
        return False
    return True


def check_workers(executor: Executor, source: Store, source_path: str, dest: Store | None, dest_path: str = "") -> None:
    """Raise ClusterError if an executor has no worker that can do the work, or if its workers see other stores.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Not one of threads.
    source : Store
        One value of it is compared as a worker and this process see it.
    source_path : str
        Where that value is looked for.
    dest : Store, optional
        This process writes a value there and a worker reads it, then the other way round; both are deleted again.
    dest_path : str
        Below which they are written.

    Notes
    -----
    A folder on the disk of each machine looks alike from everywhere, and a copy into it is lost. Cost: one task, and
    eight requests. Takes 60 seconds at the most.
    """
    if threads_of(executor) == 0:
        raise ClusterError("it has no worker", "start workers, and run this again: nothing was written")
    token = uuid.uuid4().hex.encode()
    mine, theirs = (k.join(dest_path, f".zarrstore-probe-{who}-{token.decode()}") for who in ("client", "worker"))
    sample = next(iter(source._keys(source_path)), None) if source.capabilities.listable else None
    try:
        if dest is not None:
            dest._set(mine, token)
            dest.flush()
        answer = _answer(executor, _look, source, sample, dest, mine, theirs, token)
        if dest is not None:
            _compare(dest, answer, token, theirs)
        if sample is not None and answer["sample"] != _digest(source, sample):
            raise ClusterError(
                f"worker {answer['host']} reads {sample!r} from {source} as another value, or not at all",
                "give a source that all machines see, as a shared folder or an object store; nothing was written",
            )
    finally:
        if dest is not None:
            with suppress(Exception):
                dest._delete_many([mine, theirs])


def _compare(dest: Store, answer: dict[str, Any], token: bytes, theirs: str) -> None:
    remedy = "give a destination that all machines see, as a shared folder or an object store; nothing was written"
    if answer["read"] != token:
        raise ClusterError(f"what this process writes to {dest} is not there on worker {answer['host']}", remedy)
    try:
        seen: bytes | None = dest._get(theirs)
    except KeyError:
        seen = None
    if seen != token:
        raise ClusterError(f"what worker {answer['host']} writes to {dest} is not there for this process", remedy)


def _look(
    source: Store, sample: str | None, dest: Store | None, mine: str, theirs: str, token: bytes
) -> dict[str, Any]:
    """Run on a worker: read what the client wrote, write something, and look at a value of the source."""
    import socket

    read = None
    if dest is not None:
        with suppress(KeyError):
            read = dest._get(mine)
        # Not where the client's value is absent: that is another place, which gets nothing.
        if read == token:
            dest._set(theirs, token)
            dest.flush()
    return {"host": socket.gethostname(), "read": read, "sample": None if sample is None else _digest(source, sample)}


def _digest(store: Store, key: str) -> str | None:
    try:
        return f"{store._nbytes(key)} {sha256(store._get_range(key, 0, _SAMPLE))}"
    except KeyError:
        return None


def _answer(executor: Executor, function: Callable[..., Any], *args: Any) -> Any:
    try:
        future = executor.submit(function, *args)
    except Exception as exc:
        raise failure(exc, "nothing was written") from exc
    try:
        return future.result(timeout=PATIENCE)
    except Exception as exc:
        future.cancel()
        raise failure(exc, "nothing was written") from exc
    except CancelledError as exc:
        raise failure(exc, "nothing was written") from exc


def is_of_cluster(exc: BaseException) -> bool:
    """Tell whether an error is one of the workers and not of a store.

    Examples
    --------
    >>> is_of_cluster(CancelledError()), is_of_cluster(OSError(28, "No space left on device"))
    (True, False)
    """
    package = type(exc).__module__.partition(".")[0]
    return isinstance(exc, CancelledError | ImportError) or package in _CLUSTERS


def failure(exc: BaseException, left: str) -> ClusterError:
    """Return the error for a task that failed as a whole, in words that name the cause.

    Examples
    --------
    >>> str(failure(ModuleNotFoundError("No module named 'zarrstore'"), "nothing was written"))
    "cannot work on this executor: a worker lacks a package: No module named 'zarrstore'; install there what ..."
    """
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    causes = [exc]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 10:
        causes.append(cause)
    lacking = next((one for one in causes if isinstance(one, ImportError)), None)
    if lacking is not None:
        return ClusterError(f"a worker lacks a package: {lacking}", f"install there what is installed here; {left}")
    if isinstance(exc, TimeoutError):
        return ClusterError(
            f"no worker has done a task within {PATIENCE:.0f} seconds",
            f"look whether the scheduler runs and has workers that are free; {left}",
        )
    if isinstance(exc, CancelledError) or type(exc).__name__ in ("FutureCancelledError", "CommClosedError"):
        return ClusterError(f"the scheduler is gone ({text})", f"start it again; {left}")
    return ClusterError(f"a task failed on a worker: {text}", left)


def run_elsewhere(executor: Executor, tasks: Iterable[tuple[Any, ...]], left: str) -> Iterator[Any]:
    """Yield the result of each task, in their order; ClusterError if it is the cluster that fails.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Checked by `check_workers`.
    tasks : iterable of tuple
        A function and its arguments each. Each may be done twice.
    left : str
        What the error says of what was done until then.

    Examples
    --------
    >>> from zarrstore.threads import Threads
    >>> with Threads(2) as executor:
    ...     list(run_elsewhere(executor, ((pow, 2, n) for n in range(3)), "nothing was changed"))
    [1, 2, 4]
    """
    try:
        yield from run_ordered(executor, (Task(0, task[0], task[1:]) for task in tasks))
    except (Exception, CancelledError) as exc:
        if is_of_cluster(exc):
            raise failure(exc, left) from exc
        raise
