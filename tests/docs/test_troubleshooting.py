"""Each message that the page on troubleshooting quotes is one that fedrobust has."""

import ast
import re
from functools import cache

import pytest
from demo import ROOT

from fedrobust.aggregators import Bulyan

PAGE = ROOT / "docs" / "troubleshooting.md"


@cache
def texts() -> str:
    """Every text of the source, a line each, with … for what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.append("".join(part if isinstance(part, str) else "…" for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n\n".join(found)


def quoted() -> list[str]:
    """The messages of the page."""
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"```text\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+…[^`\n]+)`", text)


def has(message: str) -> bool:
    """Whether the source has a text with the parts of ``message``, in their order."""
    parts = [re.escape(part) for part in message.split("…")]
    return re.search("[^\n]*".join(parts), texts()) is not None


@pytest.mark.slow
def test_the_messages_of_the_page_are_in_the_source() -> None:
    messages = quoted()
    assert len(messages) > 40
    with pytest.raises(ValueError, match="needs") as raised:
        Bulyan(f=2).check(10)
    raised_whole = {str(raised.value)}
    assert [each for each in messages if not has(each) and each not in raised_whole] == []


@pytest.mark.slow
def test_a_message_that_is_gone_would_be_found() -> None:
    assert has("… already holds a run: continue it with --resume")
    assert not has("… already holds the run: continue it with --resume")
    assert not has("continue it with --resume … already holds a run")
