"""What `exec` returns: a dict whose items can be read as attributes, as the original's results can."""

from __future__ import annotations

from typing import Any

__all__ = ["ExecResult"]


class ExecResult(dict[str, Any]):
    """`result["values"]` and `result.values` are the same; so are `columns`, `affected`, `last_id`, `more`.

    `columns` are names, `values` rows (both empty for a statement without rows). `affected` and `last_id` are
    there where the driver knows them; as attributes they are None otherwise. `more` are the results of the
    statements after the first one, where there are any.
    """

    __slots__ = ()

    @property
    def columns(self) -> list[str]:
        return self["columns"]  # type: ignore[no-any-return]

    @property
    def values(self) -> list[list[Any]]:  # type: ignore[override]
        """The rows. (A dict's own `values()` is not to be had: use `list(dict(result).values())`.)"""
        return self["values"]  # type: ignore[no-any-return]

    @property
    def affected(self) -> int | None:
        return self.get("affected")

    @property
    def last_id(self) -> int | None:
        return self.get("last_id")

    @property
    def more(self) -> list[ExecResult]:
        return [ExecResult(each) for each in self.get("more", ())]
