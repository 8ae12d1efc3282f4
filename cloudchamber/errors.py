"""The one error for a user's mistake."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: its one line says what is wrong and where. The command line prints it and exits with status 2."""
