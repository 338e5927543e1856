"""The README's commands are the ones that are run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def test_continuous_integration_runs_the_commands_of_the_readme():
    commands = re.findall(r"^   \$ (.+)$", (HERE / "README.rst").read_text(encoding="utf-8"), re.MULTILINE)
    script = (HERE / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert len(commands) >= 2
    assert commands[0] in script
    assert script[-1] == commands[1]  # the last thing, so that pytest has the last word


def test_the_screens_of_the_readme_are_those_of_the_manual():
    screens = [path.read_text(encoding="utf-8") for path in (HERE / "docs" / "screens").glob("*.txt")]
    text = (HERE / "README.rst").read_text(encoding="utf-8")
    found = re.findall(r"^   (\$ zarrstore .+\n(?:   [^$ ].*\n)*)", text, re.MULTILINE)
    assert len(found) == 3
    for screen in found:
        assert any(textwrap.dedent(f"   {screen}") in one for one in screens), screen
