"""The README's Python runs as written, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_readme_shows_code_early():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 48


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_snippet_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README.md snippet {number}", "exec"), {"__name__": "readme"})  # noqa: S102
