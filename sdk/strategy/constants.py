"""FMZ's constants with FMZ's values, on which FMZ's published Python and Rust libraries agree."""

from __future__ import annotations

__all__ = ["CONSTANTS"]

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

CONSTANTS: dict[str, int] = {
    "ORDER_STATE_PENDING": 0,
    "ORDER_STATE_CLOSED": 1,
    "ORDER_STATE_CANCELED": 2,
    "ORDER_STATE_UNKNOWN": 3,
    "ORDER_TYPE_BUY": 0,
    "ORDER_TYPE_SELL": 1,
    "ORDER_OFFSET_OPEN": 0,
    "ORDER_OFFSET_CLOSE": 1,
    "ORDER_CONDITION_TYPE_OCO": 0,
    "ORDER_CONDITION_TYPE_TP": 1,
    "ORDER_CONDITION_TYPE_SL": 2,
    "ORDER_CONDITION_TYPE_GENERIC": 3,
    "PD_LONG": 0,
    "PD_SHORT": 1,
    "PD_LONG_YD": 2,
    "PD_SHORT_YD": 3,
    "LOG_TYPE_BUY": 0,
    "LOG_TYPE_SELL": 1,
    "LOG_TYPE_CANCEL": 2,
    "LOG_TYPE_ERROR": 3,
    "LOG_TYPE_PROFIT": 4,
    "LOG_TYPE_LOG": 5,
    "LOG_TYPE_RESTART": 6,
    "PERIOD_M1": _MINUTE,
    "PERIOD_M3": 3 * _MINUTE,
    "PERIOD_M5": 5 * _MINUTE,
    "PERIOD_M15": 15 * _MINUTE,
    "PERIOD_M30": 30 * _MINUTE,
    "PERIOD_H1": _HOUR,
    "PERIOD_H2": 2 * _HOUR,
    "PERIOD_H4": 4 * _HOUR,
    "PERIOD_H6": 6 * _HOUR,
    "PERIOD_H12": 12 * _HOUR,
    "PERIOD_D1": _DAY,
    "PERIOD_D3": 3 * _DAY,
    "PERIOD_W1": 7 * _DAY,
}
"""Periods are in seconds."""
