"""Plots, tables and the event display."""

from __future__ import annotations

from cloudchamber.report.display import write_display
from cloudchamber.report.fits import plot_fits, plot_pulls, plot_widths
from cloudchamber.report.plots import AXES, COLOURS, Axis, Curve, plot_efficiency
from cloudchamber.report.scores import (
    RATE_COLUMNS,
    STAGE_COLUMNS,
    curves,
    rate_rows,
    score_rows,
    score_tables,
    split_title,
    stage_rows,
    write_report,
)
from cloudchamber.report.showers import SHOWER_COLUMNS, plot_showers, shower_row
from cloudchamber.report.tables import Column, console_table, markdown_table, measured, memory, percent, plain, seconds
from cloudchamber.report.tags import tag_rows, tag_table, write_tag_report
from cloudchamber.report.views import plot_event

__all__ = [
    "AXES",
    "COLOURS",
    "RATE_COLUMNS",
    "SHOWER_COLUMNS",
    "STAGE_COLUMNS",
    "Axis",
    "Column",
    "Curve",
    "console_table",
    "curves",
    "markdown_table",
    "measured",
    "memory",
    "percent",
    "plain",
    "plot_efficiency",
    "plot_event",
    "plot_fits",
    "plot_pulls",
    "plot_showers",
    "plot_widths",
    "rate_rows",
    "score_rows",
    "score_tables",
    "seconds",
    "shower_row",
    "split_title",
    "stage_rows",
    "tag_rows",
    "tag_table",
    "write_display",
    "write_report",
    "write_tag_report",
]
