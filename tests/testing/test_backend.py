"""The physical connection of a sandbox, and the inner names of asyncpg that it stands on."""

import asyncio
import inspect
from typing import Any, cast

import asyncpg
import pytest

from stillroom.testing.wire.backend import Backend, BackendError


async def test_asyncpg_has_the_names_that_are_used(database_url: str) -> None:
    """A transport that may change its protocol, and a way to cancel: a contract."""
    connection = await cast("Any", asyncpg).connect(database_url)

    assert isinstance(connection._transport, asyncio.Transport)
    assert callable(connection._transport.set_protocol)
    assert inspect.iscoroutinefunction(connection._cancel)
    await connection.close()


async def test_a_backend_answers_in_order(database_url: str) -> None:
    """Each answer goes to its own question, and an error to the one that made it."""
    backend = await Backend.open(dsn=database_url)
    first, second = backend.query("SELECT 1, NULL"), backend.query("SELECT 2 / 0")

    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert answers[0] == [["1", None]]
    assert isinstance(answers[1], BackendError)
    assert str(answers[1]) == "division by zero"
    await backend.close()


async def test_a_lost_server_is_told(database_url: str) -> None:
    """Who waits for an answer gets an error when the server hangs up."""
    backend = await Backend.open(dsn=database_url)
    with pytest.raises(BackendError, match="terminating connection"):
        await backend.query("SELECT pg_terminate_backend(pg_backend_pid())")
    await backend.close()
