"""The names of all properties that the installed librdkafka has, as it lists them itself."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

__all__ = ["property_names"]


def property_names(folder: Path) -> set[str]:
    """Those that take text: functions and pointers left out. The list is written into `folder`."""
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)  # it brings librdkafka along
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    listed = folder / "properties"
    file = ctypes.c_void_p(libc.fopen(str(listed).encode(), b"w"))
    library.rd_kafka_conf_properties_show(file)
    libc.fclose(file)
    rows = [line.split("|") for line in listed.read_text().splitlines() if line.count("|") >= 4]
    return {
        row[0].strip()
        for row in rows
        if row[1].strip() in ("C", "P", "*") and "see dedicated API" not in row[-1]
    }
