"""Work that goes on where a part of it fails: what could be done is written, and of the rest is told why not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cloudchamber.data.store import atomic
from cloudchamber.errors import UserError
from cloudchamber.pool import Lost, Start, in_processes, on_dask

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Outcome:
    """What became of a batch of events: how many were done, how many rows they gave, and a line for each failure."""

    events: int = 0
    rows: int = 0
    failed: list[str] = field(default_factory=list)

    def complain(self) -> None:
        """Raise ``UserError`` with the lines of what failed, if anything did."""
        if self.failed:
            raise UserError("\n".join(self.failed))


def results(
    start: Start[T, R | str],
    items: Sequence[T],
    names: Sequence[str],
    failed: list[str],
    workers: int = 1,
    dask: str | None = None,
) -> Generator[tuple[str, R]]:
    """Name and result of each item, in their order, from processes (``pool``); close it where it may be left early.

    Instead of a result that is a string, or of one that processes die of, there is a line in ``failed``.
    """
    # What starts here, such as the loading of a model, fails before anything is written.
    return _results(on_dask(start, items, dask) if dask else in_processes(start, items, workers), names, failed)


def _results(found: Generator[R | str | Lost], names: Sequence[str], failed: list[str]) -> Generator[tuple[str, R]]:
    with closing(found):
        for name, result in zip(names, found, strict=True):
            if isinstance(result, Lost):
                failed.append(f"{name}: {result.reason}")
            elif isinstance(result, str):
                failed.append(result)
            else:
                yield name, result


@contextmanager
def growing_table(path: Path, schema: Any, group: int) -> Iterator[Callable[[Any], None]]:
    """Gives what adds a table to a Parquet file, which appears when all is written; ``group`` tables share a row group.

    The writer keeps some kB of each row group until the end.
    """
    pending: list[Any] = []
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic(path))
        writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))

        def write(table: Any) -> None:
            pending.append(table)
            if len(pending) == group:
                writer.write_table(pa.concat_tables(pending))
                pending.clear()

        yield write
        if pending:
            writer.write_table(pa.concat_tables(pending))
