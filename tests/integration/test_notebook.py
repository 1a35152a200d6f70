"""What a notebook shows of the values: well-formed, escaped, without a script or a link."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.notebook import diff

SCOPE = Scope(tenant_id="acme", thread_id="t")
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)> & "Ann"'
VOID = {"br", "hr", "img", "input", "meta", "link"}


class Page(HTMLParser):
    """Holds a page to its tags, and keeps its text."""

    def __init__(self, html):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        for turn in range(60):
            manager.record(
                [
                    HumanMessage(f"{NASTY} harbour ledger {turn}", id=f"q{turn}<b>"),
                    AIMessage(f"Noted, ledger {turn} of the harbour. " * 4, id=f"a{turn}"),
                ],
                scope=SCOPE,
            )
        yield manager


def prepared(manager, text, limit=2_500):
    question = HumanMessage(text, id=text)
    context = manager.prepare(scope=SCOPE, query=question, max_tokens=limit, system="Be terse.")
    manager.record([question, AIMessage("Yes.")], scope=SCOPE)
    return context


def shown(value):
    """Its page, once held to what any notebook may show."""
    html = value._repr_html_()
    page = Page(html)
    assert page.tags <= {
        "style", "div", "b", "table", "tr", "th", "td", "span", "details", "summary",
    }  # fmt: skip
    assert page.attributes <= {"class", "style", "open"}
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    assert "prefers-color-scheme:dark" in html
    assert "--jp-content-font-color1" in html
    return page


class TestContext:
    def test_sections_add_up_to_the_budget(self, manager):
        context = prepared(manager, "What of the harbour ledger 3?")
        html = context._repr_html_().partition("</style>")[2]
        page = shown(context)
        widths = [float(found) for found in re.findall(r";width:([\d.]+)%", html)]
        assert sum(widths) == pytest.approx(100, abs=0.1)
        starts = [float(found) for found in re.findall(r"margin-left:([\d.]+)%", html)]
        assert starts == sorted(starts)
        assert f"{context.tokens:,}" in page.text
        for kind, tokens in context.sections.items():
            assert f"{kind}" in page.text
            assert f"{tokens:,}" in page.text

    def test_every_item_says_why(self, manager):
        context = prepared(manager, "What of the harbour ledger 3?")
        page = shown(context.receipt)
        for item in context.receipt:
            assert item.id in page.text
            assert item.reason in page.text

    def test_text_cannot_become_markup(self, manager):
        context = prepared(manager, "What of the harbour ledger 3?")
        assert NASTY in shown(context).text
        assert "<script" not in context._repr_html_()
        assert "<img" not in context._repr_html_()


def test_memories_and_figures(manager):
    found = manager.recall("harbour ledger 7", scope=SCOPE, k=3)
    assert found[0].text in shown(found).text
    assert shown(found[0]).text.count(found[0].text) == 1
    assert isinstance(found, list)
    stats = manager.stats(scope=SCOPE)
    page = shown(stats)
    assert set(stats) <= set(re.findall(r"\w+", page.text))
    assert "120" in page.text


class TestDiff:
    def test_tells_what_came_and_what_went(self, manager):
        prepared(manager, "Good morning.")  # a first prompt has no room left to go on from
        first = prepared(manager, "What of the harbour ledger 3?")
        second = prepared(manager, "And ledger number 41?")
        told = diff(first, second)
        assert told.is_extended
        assert told.shared_messages == len(first.messages)
        assert {item.id for item in told.added} >= {"And ledger number 41?"}
        assert told.removed == ()
        page = shown(told)
        assert f"begins with all  {len(first.messages)}  of {len(first.messages)}" in page.text
        assert f"{second.tokens - first.tokens:+,}" in page.text
        assert "And ledger number 41?" in str(told)

    def test_tells_where_a_prompt_starts_anew(self, manager):
        first = prepared(manager, "What of the harbour ledger 3?")
        second = prepared(manager, "And ledger number 41?", limit=2_100)
        told = diff(first, second)
        assert not told.is_extended
        assert told.removed
        assert "begins with only" in shown(told).text
