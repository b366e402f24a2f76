"""The broker of a parent process."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.proxy import brokers, discovery
from trunkline.proxy.family import broker_of_parents


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Address -> what the broker there answers."""
    answers: dict[str, Any] = {}
    found = [SimpleNamespace(address=address) for address in ("ipc://one", "ipc://two")]
    monkeypatch.setattr(discovery, "find_brokers", lambda: (found, []))
    monkeypatch.setattr(
        brokers, "ask", lambda asked, seconds: {a: answers[a] for a in asked if a in answers}
    )
    return answers


def test_it_is_the_one_that_the_parent_is_a_client_of(clients: dict[str, Any]) -> None:
    clients["ipc://one"] = {"clients": [1]}
    clients["ipc://two"] = {"clients": [7, os.getppid()]}
    assert broker_of_parents() == "ipc://two"


def test_there_is_none_where_no_parent_is_a_client(clients: dict[str, Any]) -> None:
    clients["ipc://one"] = {"clients": [os.getpid()]}  # this process itself is no parent
    clients["ipc://two"] = None  # it does not answer
    assert broker_of_parents() is None
