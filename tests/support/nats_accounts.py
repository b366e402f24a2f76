"""A NATS operator of one's own: the server's trust and a user's credentials file, as `nsc` makes them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass

import nkeys

__all__ = ["Accounts", "make_accounts"]


@dataclass(frozen=True)
class Accounts:
    """What the server is told, and what a user has."""

    config: str
    """For nats-server's configuration."""
    creds: str
    """The content of the user's credentials file."""
    seed: str


def make_accounts() -> Accounts:
    """An operator, an account and a user, each vouched for by the one before."""
    operator, account, user = (
        _pair(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    operator_jwt = _jwt(operator, operator, {"type": "operator"})
    account_jwt = _jwt(
        operator, account, {"type": "account", "limits": {**limits, "wildcards": True}}
    )
    user_jwt = _jwt(account, user, {"type": "user", "subs": -1, "data": -1, "payload": -1})
    public, seed = account.public_key.decode(), user.seed.decode()
    return Accounts(
        f'operator: "{operator_jwt}"\nresolver: MEMORY\nresolver_preload: {{ {public}: "{account_jwt}" }}',
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
        seed,
    )


def _pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, about: dict[str, object]) -> str:
    claims = {
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": str(about["type"]),
        "nats": {"version": 2, **about},
    }
    body = json.dumps(claims, separators=(",", ":"))
    claims["jti"] = base64.b32encode(hashlib.sha256(body.encode()).digest()).decode().rstrip("=")
    text = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(claims)}"
    return f"{text}.{_coded(issuer.sign(text.encode()))}"


def _part(value: object) -> str:
    return _coded(json.dumps(value, separators=(",", ":")).encode())


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
