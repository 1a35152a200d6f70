"""How contexts, receipts, memories and figures show themselves in a notebook.

HTML with its own style and nothing else: no script, nothing from a network, every text escaped.
Colours follow the notebook's theme, light or dark; where it names none, the system's. Each value
has a `_repr_html_` that comes here, so a cell that ends in it is enough; `diff` sets two turns
side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from langchain_ctxmgr.records import Memory, PreparedContext, ReceiptItem

_SHOWN_CHARS = 400
"""Of each message's text."""
_STYLE = """<style>
.ctxmgr{--ink:var(--jp-content-font-color1,var(--vscode-foreground,#1b1f24));
--dim:var(--jp-content-font-color2,var(--vscode-descriptionForeground,#59636e));
--line:var(--jp-border-color2,#d1d9e0);--in:#1a7f37;--out:#9a6700;
color:var(--ink);font-size:13px;line-height:1.45;max-width:60em}
@media (prefers-color-scheme:dark){.ctxmgr{
--ink:var(--jp-content-font-color1,var(--vscode-foreground,#e6edf3));
--dim:var(--jp-content-font-color2,var(--vscode-descriptionForeground,#9198a1));
--line:var(--jp-border-color2,#3d444d);--in:#3fb950;--out:#d29922}}
[data-jp-theme-light="true"] .ctxmgr{--in:#1a7f37;--out:#9a6700}
[data-jp-theme-light="false"] .ctxmgr{--in:#3fb950;--out:#d29922}
.ctxmgr table{border-collapse:collapse;width:100%;margin:.3em 0;color:inherit;background:none}
.ctxmgr tr{background:none!important}
.ctxmgr th,.ctxmgr td{text-align:left!important;padding:2px 8px;vertical-align:top;
border-bottom:1px solid var(--line)}
.ctxmgr th{white-space:nowrap}.ctxmgr .t{overflow-wrap:anywhere}
.ctxmgr .n{text-align:right!important;white-space:nowrap;font-variant-numeric:tabular-nums}
.ctxmgr th,.ctxmgr .dim{color:var(--dim)}.ctxmgr .in{color:var(--in)}.ctxmgr .out{color:var(--out)}
.ctxmgr .track{width:45%}.ctxmgr .bar{display:block;height:.9em;min-width:1px;border-radius:2px}
.ctxmgr summary{cursor:pointer;margin-top:.4em}
.ctxmgr .system{background:#8250df}.ctxmgr .tools{background:#6e7781}
.ctxmgr .summary{background:#bf8700}.ctxmgr .history{background:#0969da}
.ctxmgr .recalled{background:#1a7f37}.ctxmgr .facts{background:#0a7ea4}
.ctxmgr .pinned{background:#bc4c00}.ctxmgr .standing{background:#8a6116}
.ctxmgr .current{background:#cf222e}
.ctxmgr .free{background:none;outline:1px dashed var(--line);outline-offset:-1px}
</style>"""


def context_html(context: PreparedContext) -> str:
    """A prepared context: its tokens by section against the budget, and why each item is in."""
    used = context.tokens / max(1, context.max_tokens)
    facts = [
        f"<b>{context.tokens:,}</b> of {context.max_tokens:,} tokens ({used:.0%})",
        f"the whole conversation: {context.full_tokens:,}",
        f"risk {_text(context.risk)}",
        f"importance kept {context.preservation:.0%}",
        f"{context.elapsed.total_seconds() * 1e3:.1f} ms",
    ]
    if context.cost is not None:
        facts.insert(2, f"USD {context.cost:.6f}")
    if not context.exact:
        facts.append("tokens estimated")
    return _page(
        f"<div>{' · '.join(facts)}</div>",
        _waterfall(context),
        _details(f"Messages: {len(context.messages)}", _messages(context.messages)),
        _receipt(context.receipt),
    )


def receipt_html(items: Sequence[ReceiptItem]) -> str:
    """A receipt: what is in and what is out, each with its reason."""
    return _page(_items(items))


def memories_html(memories: Sequence[Memory]) -> str:
    """Recalled messages: who, when, what, and what each arm adds to the score."""
    rows = [
        (
            _text(memory.at.date().isoformat()),
            _text(memory.speaker or memory.role),
            _cell(_text(_shortened(memory.text)), "t"),
            _number(f"{memory.score:.2f}"),
            _number(f"{memory.tokens:,}"),
            _text(", ".join(f"{arm} {value:+.2f}" for arm, value in _strongest(memory.arms))),
        )
        for memory in memories
    ]
    return _page(_table(("said", "by", "text", "score", "tokens", "why"), rows))


def stats_html(stats: Mapping[str, Any]) -> str:
    """A manager's figures, a table for each group of them."""
    groups = (_details(_text(name), _figures(group), is_open=True) for name, group in stats.items())
    return _page(*groups)


@dataclass(frozen=True, slots=True)
class ContextDiff:
    """What changed from one prepared context to the next."""

    before: PreparedContext
    after: PreparedContext

    @property
    def shared_messages(self) -> int:
        """How many messages both begin with: what a provider's prompt cache can keep."""
        pairs = zip(self.before.messages, self.after.messages, strict=False)
        return sum(1 for _ in takewhile(lambda pair: _says(pair[0]) == _says(pair[1]), pairs))

    @property
    def is_extended(self) -> bool:
        """Whether the later prompt begins with all of the earlier one."""
        return self.shared_messages == len(self.before.messages)

    @property
    def added(self) -> tuple[ReceiptItem, ...]:
        """Items that only the later view shows."""
        return self._only(self.after, self.before)

    @property
    def removed(self) -> tuple[ReceiptItem, ...]:
        """Items that only the earlier view shows."""
        return self._only(self.before, self.after)

    def __str__(self) -> str:
        """In words."""
        whole = len(self.before.messages)
        lines = [
            f"{self.before.tokens:,} → {self.after.tokens:,} tokens",
            f"the later one begins with {self.shared_messages} of {whole} messages of the earlier",
        ]
        lines += [f"  {kind}: {old:,} → {new:,}" for kind, old, new in self._sections()]
        lines += [f"  + {item.kind} {item.id} ({item.reason})" for item in self.added]
        lines += [f"  - {item.kind} {item.id}" for item in self.removed]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        held = "all" if self.is_extended else "only"
        rows = [
            (_text(kind), _number(f"{old:,}"), _number(f"{new:,}"), _number(f"{new - old:+,}"))
            for kind, old, new in self._sections()
        ]
        rows.append(
            (
                "<b>all</b>",
                _number(f"{self.before.tokens:,}"),
                _number(f"{self.after.tokens:,}"),
                _number(f"{self.after.tokens - self.before.tokens:+,}"),
            )
        )
        shared, whole = self.shared_messages, len(self.before.messages)
        return _page(
            f"<div>The later prompt begins with {held} <b>{shared}</b> of {whole} messages of the "
            "earlier one.</div>",
            _table(("section", "before", "after", "change"), rows),
            _details(f"Added: {len(self.added)}", _items(self.added), is_open=True),
            _details(f"Gone: {len(self.removed)}", _items(self.removed), is_open=True),
        )

    def _sections(self) -> list[tuple[str, int, int]]:
        before, after = self.before.sections, self.after.sections
        kinds = dict.fromkeys((*before, *after))
        return [(str(kind), before.get(kind, 0), after.get(kind, 0)) for kind in kinds]

    @staticmethod
    def _only(one: PreparedContext, other: PreparedContext) -> tuple[ReceiptItem, ...]:
        known = {item.id for item in other.receipt.included}
        return tuple(item for item in one.receipt.included if item.id not in known)


def diff(before: PreparedContext, after: PreparedContext) -> ContextDiff:
    """What changed between two views: sections, items, and the beginning that both share.

    Shows itself in a notebook; `print` it elsewhere.
    """
    return ContextDiff(before, after)


def _waterfall(context: PreparedContext) -> str:
    """One row a section, each bar beginning where the one above ends."""
    limit, start = max(1, context.max_tokens, context.tokens), 0
    rows: list[tuple[str, ...]] = []
    free = max(0, context.max_tokens - context.tokens)
    for name, tokens in [*((str(k), v) for k, v in context.sections.items()), ("free", free)]:
        left, width = 100 * start / limit, 100 * tokens / limit
        bar = f'<span class="bar {_text(name)}" style="margin-left:{left:.2f}%;width:{width:.2f}%">'
        shown = f"{bar}</span>" if tokens else ""
        rows.append(
            (
                _text(name),
                _cell(shown, "track"),
                _number(f"{tokens:,}"),
                _number(f"{tokens / limit:.1%}"),
            )
        )
        start += tokens
    return _table(("section", "of the budget", "tokens", "share"), rows)


def _receipt(items: Sequence[ReceiptItem]) -> str:
    inside = sum(item.included for item in items)
    return _details(f"Receipt: {inside} in, {len(items) - inside} out", _items(items))


def _items(items: Iterable[ReceiptItem]) -> str:
    rows = [
        (
            '<span class="in">in</span>' if item.included else '<span class="out">out</span>',
            _text(item.kind),
            _cell(_text(item.id), "t"),
            _number(f"{item.tokens:,}"),
            _number("" if item.score is None else f"{item.score:.2f}"),
            _text(item.reason),
        )
        for item in items
    ]
    return _table(("", "section", "item", "tokens", "score", "why"), rows)


def _messages(messages: Sequence[BaseMessage]) -> str:
    rows = [(_text(m.type), _cell(_text(_shortened(m.text or _called(m))), "t")) for m in messages]
    return _table(("role", "text"), rows)


def _called(message: BaseMessage) -> str:
    calls = cast("list[dict[str, Any]]", getattr(message, "tool_calls", []))
    return ", ".join(f"{call['name']}({call['args']})" for call in calls)


def _figures(group: Any) -> str:
    """Figures by name; groups within the group stand in their cell."""
    if not isinstance(group, Mapping):
        return f"<div>{_figure(group)}</div>"
    rows = [
        (_text(name), _figures(value) if isinstance(value, Mapping) else _number(_figure(value)))
        for name, value in cast("Mapping[str, Any]", group).items()
    ]
    return _table((), rows) if rows else '<div class="dim">nothing yet</div>'


def _figure(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return _text(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _page(*parts: str) -> str:
    return f'{_STYLE}<div class="ctxmgr">{"".join(parts)}</div>'


def _details(title: str, body: str, *, is_open: bool = False) -> str:
    """`title` is HTML already."""
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>{body}</details>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Heads are HTML already, and so are rows' cells, which come from `_cell` or are text."""
    lead = f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>" if heads else ""
    lines = (f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in rows)
    return f"<table>{lead}{''.join(lines)}</table>"


def _cell(content: str, kind: str = "") -> str:
    if content.startswith("<td"):
        return content
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


def _number(text: str) -> str:
    return _cell(text, "n")


def _text(value: object) -> str:
    return escape(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} […]"


def _strongest(arms: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(arms.items(), key=lambda arm: -abs(arm[1]))[:3]


def _says(message: BaseMessage) -> tuple[object, ...]:
    return message.type, message.id, message.content, getattr(message, "tool_calls", None)
