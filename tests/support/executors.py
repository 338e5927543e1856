"""An executor whose workers are elsewhere, as far as a store can tell, and in this process all the same."""

from __future__ import annotations

import pickle
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["Elsewhere"]


class Elsewhere(Executor):
    """Run each task at once on what a pickle makes of it, as another process would; `twist` changes what it gets."""

    def __init__(self, twist: Any = None, answer: Any = None) -> None:
        self.twist, self.answer, self.n_tasks = twist, answer, 0
        self._max_workers = 4

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
        self.n_tasks += 1
        future: Future[Any] = Future()
        if isinstance(self.answer, BaseException):
            future.set_exception(self.answer)
            return future
        if self.answer == "never":
            return future
        args = pickle.loads(pickle.dumps(args))
        if self.twist is not None:
            args = self.twist(args)
        try:
            future.set_result(function(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future
