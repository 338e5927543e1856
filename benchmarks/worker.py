"""Runs in each interpreter: takes a measurement a line, as JSON, and answers by a line."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import traceback
import warnings


def main() -> None:
    """Answer until the input ends."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, sys.argv[1])
    # What a library prints must not stand among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        try:
            with tempfile.TemporaryDirectory(dir=order["folder"]) as folder:
                module = importlib.import_module(f"benchmarks.scenarios.{order['scenario']}")
                answer = module.measure(order["contestant"], folder, **order["params"])
        except ImportError as exc:
            answer = {"lacks": str(exc)}
        except Exception:
            answer = {"error": traceback.format_exc(limit=4)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
