"""The result of `exec`: a dict whose items are attributes too, as in FMZ's results."""

from __future__ import annotations

from typing import Any

__all__ = ["ExecResult"]


class ExecResult(dict[str, Any]):
    """A dict whose items can be read as attributes: `result["values"]` and `result.values` are the
    same.

    `columns` are the names of the columns, `values` the rows; both are empty for a statement
    without rows. `affected` (rows changed) and `last_id` are items only where the driver knows
    them; the attributes are None otherwise. `more` are the results of the further statements, where
    there are any.
    """

    __slots__ = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self["columns"]  # type: ignore[no-any-return]

    @property
    def values(self) -> list[list[Any]]:  # type: ignore[override]
        """The rows. The method `values` of dict is hidden: use `list(dict(result).values())`."""
        return self["values"]  # type: ignore[no-any-return]

    @property
    def affected(self) -> int | None:
        """The number of rows that the statement has changed; None where the driver does not
        know."""
        return self.get("affected")

    @property
    def last_id(self) -> int | None:
        """The id of the last row that the statement has inserted; None where the driver does not
        know."""
        return self.get("last_id")

    @property
    def more(self) -> list[ExecResult]:
        """The results of the statements after the first."""
        return [ExecResult(each) for each in self.get("more", ())]
