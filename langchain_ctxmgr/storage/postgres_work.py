"""Work on a PostgreSQL log: statements in batches, bound to one tenant.

Work is a generator that yields batches of statements and is handed their rows, so that it
is written once and run blocking or on an event loop. A batch is one round trip, sent as a
pipeline. A read of one statement is a transaction of its own; one of several is one snapshot
where they have to agree. A write is one transaction from its first batch to the `COMMIT` it
ends its last batch with. Each transaction begins by binding
the tenant for itself alone, which is what row-level security goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, LiteralString, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]


class Statement(NamedTuple):
    """A statement and its values: its text is put together from constants alone."""

    text: LiteralString
    values: Sequence[Any] = ()


Batch: TypeAlias = Sequence[Statement]
Steps: TypeAlias = Generator[Batch, Sequence[list[Row]], T]

BEGIN: Final = Statement("BEGIN")
SNAPSHOT: Final = Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
COMMIT: Final = Statement("COMMIT")
_UNHURRIED: Final = Statement("SELECT set_config('statement_timeout', '0', true)")
_BIND: Final = "SELECT set_config('ctxmgr.tenant_id', %s, true)"
_LIST: Final = Statement("SELECT set_config('ctxmgr.list_tenants', 'on', true)")


def array(numbers: Iterable[int]) -> str:
    """Integers as an array's text, which psycopg's own dumper takes ten times as long for."""
    return "{" + ",".join(map(str, numbers)) + "}"


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What is to be done for a tenant."""

    tenant_id: str | None
    """None: for none in particular; tenants' ids and erasures are seen, no other rows."""
    steps: Callable[[], Steps[T]]
    """Called for each try."""
    begin: Statement | None = None
    """How its one transaction begins; None: each batch is a transaction."""
    is_long: bool = False
    """Whether a statement may take longer than the time-out."""

    def framed(self) -> Steps[T]:
        """The steps with what begins and ends their transactions."""
        bind = _LIST if self.tenant_id is None else Statement(_BIND, (self.tenant_id,))
        prefix = [bind] if self.begin is None else [self.begin, bind]
        if self.is_long:
            prefix.append(_UNHURRIED)
        steps = self.steps()
        batch: Batch = ()
        try:
            batch = next(steps)
            while True:
                rows = yield [*prefix, *batch]
                answers = rows[len(prefix) :]
                if self.begin is not None:
                    prefix = []
                batch = steps.send(answers)
        except StopIteration as stop:
            if self.begin is not None and batch and batch[-1] is not COMMIT:
                # Nothing to undo, and a ROLLBACK would have psycopg prepare everything again.
                yield [COMMIT]
            return stop.value
        finally:
            steps.close()
