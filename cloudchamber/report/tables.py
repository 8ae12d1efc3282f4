"""Tables for people: numbers with their errors, times and memory, as markdown or on the console."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

_NONE = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table: the key of its value in a row, its heading and how the value is written."""

    key: str
    heading: str = ""
    show: Callable[[Any], str] | None = None

    def text(self, row: Mapping[str, Any]) -> str:
        """The cell of this column in a row; a dash where the row has no value."""
        value = row.get(self.key)
        return _NONE if value is None else (self.show or plain)(value)


Columns = Sequence[Column | str]


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Columns) -> str:
    """Rows as a GitHub markdown table, numbers to the right, ends without a newline."""
    heads, cells, right = _layout(rows, columns)
    heads, cells = [_escape(head) for head in heads], [[_escape(cell) for cell in row] for row in cells]
    width = [max(3, *(len(row[i]) for row in [heads, *cells])) for i in range(len(heads))]
    lines = [heads, *cells]
    text = ["| " + " | ".join(_pad(row[i], width[i], right[i]) for i in range(len(heads))) + " |" for row in lines]
    rule = ["-" * (width[i] - 1) + ":" if right[i] else "-" * width[i] for i in range(len(heads))]
    return "\n".join([text[0], "| " + " | ".join(rule) + " |", *text[1:]])


def console_table(rows: Iterable[Mapping[str, Any]], columns: Columns, title: str | None = None) -> Table:
    """Rows as a table that ``rich.console.Console().print`` draws, numbers to the right."""
    heads, cells, right = _layout(rows, columns)
    table = Table(title=title, title_style="bold", header_style="bold cyan", title_justify="left")
    for head, number in zip(heads, right, strict=True):
        table.add_column(Text(head), justify="right" if number else "left")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a cell are no markup
    return table


def _layout(rows: Iterable[Mapping[str, Any]], columns: Columns) -> tuple[list[str], list[list[str]], list[bool]]:
    rows = list(rows)
    given = [Column(column, column) if isinstance(column, str) else column for column in columns]
    values = [[row.get(column.key) for row in rows] for column in given]
    right = [any(v is not None for v in own) and not any(isinstance(v, str) for v in own) for own in values]
    return [c.heading or c.key for c in given], [[c.text(row) for c in given] for row in rows], right


def _pad(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def plain(value: Any) -> str:
    """Text as it is, integers with thin thousands, other numbers with four digits, a value with errors likewise."""
    if hasattr(value, "low") and hasattr(value, "high"):
        return measured(value)
    if isinstance(value, str | bool):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return _NONE
    return f"{int(number):,}".replace(",", "\u202f") if number.is_integer() and abs(number) < 1e15 else f"{number:.4g}"


def measured(value: Any, scale: float = 1.0, unit: str = "") -> str:
    """A value with its interval (attributes ``value``, ``low``, ``high``), rounded to two digits of the larger error.

    Written ``0.962 ± 0.003``, or ``0.962 +0.003 −0.004`` where the two errors differ; a plain number has no error.
    """
    if not hasattr(value, "low"):
        return _NONE if not math.isfinite(float(value)) else f"{float(value) * scale:.4g}{unit}"
    mean, low, high = (float(v) * scale for v in (value.value, value.low, value.high))
    if not math.isfinite(mean):
        return _NONE
    up, down = high - mean, mean - low
    errors = [error for error in (up, down) if error > 0 and math.isfinite(error)]
    if not errors:
        return f"{mean:.4g}{unit}"
    digits = max(0, 1 - math.floor(math.log10(max(errors))))
    higher, lower = f"{up:.{digits}f}", f"{down:.{digits}f}"
    error = f"± {higher}" if higher == lower else f"+{higher} −{lower}"
    return f"{mean:.{digits}f} {error}{unit}"


def percent(value: Any) -> str:
    """A fraction with or without errors, in percent: ``96.2 ± 0.3 %``."""
    return measured(value, 100.0, " %")


def seconds(value: float) -> str:
    """A duration given in seconds: ``12.3 ms``, ``4.20 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if not math.isfinite(value):
        return _NONE
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    if value < 99.95:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(value: float) -> str:
    """An amount of memory given in bytes, decimal: ``312 MB``, ``1.42 GB``."""
    if not math.isfinite(value):
        return _NONE
    for unit in ("B", "kB", "MB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB" if value < 999.5 else f"{value / 1000:.3g} TB"
