"""Law 5: no parameter, no value of DETAIL and no secret is in any log, traceback or answer."""

import json
import re
from typing import Any

import httpx2
import pytest

from tests.laws.conftest import PASSWORD, Service, wait_until

CANARY = "zaunkoenig"
"""A word that stands in no source but this one."""

WAYS = {
    "message": "RuntimeError: somebody came who is named …",
    "key": "KeyError: …",
    "number": "ValueError: …",
    "argument": "TypeError: Tales.argument() got an unexpected keyword argument '…'",
    "keyword": "is an invalid keyword argument for",
    "attribute": "AttributeError: type object 'Item' has no attribute '…'",
    "model": "ValidationError: 1 values are not valid: number (int_parsing)",
    "note": "RuntimeError: noted",
    "context": "RuntimeError: it went wrong",
    "group": "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
    "task": "Task exception was never retrieved",
    "callback": "Exception in callback int\n",
    "thread": "ValueError: …",
    "warning": "SAWarning: identity key (…,)",
    "notice": "",
    "echo": "Row '…'",
    "log": ", SQLSTATE 23514, constraint ck_items_size",
}
"""By the name of each way, what the log says instead."""

BAD_VALUES: list[dict[str, Any]] = [
    {"name": CANARY, "size": 2000},
    {"name": None, "price": 1.5},
    {"name": CANARY * 10},
    {"name": f"{CANARY}-big", "price": 123456},
    {"name": f"{CANARY}-odd", "size": CANARY},
    {"name": f"{CANARY}-huge", "size": 2**40},
    {"name": f"{CANARY}\0"},
    {"name": f"{CANARY}\ud800"},
    {"name": f"{CANARY}-child", "parent_id": 424242},
    {CANARY: 1},
]

STATEMENTS = [
    "SELECT '{0}'::int",
    "SELECT * FROM items WHERE name = '{0}' AND no_such_column = 1",
    "SELECT E'\\'{0}' FROM nothing",
    "SELECT $a$ {0} $a$ FROM nothing",
    "SELECT '{0}' /* {0} */ FROM nothing -- {0}",
    "INSERT INTO items (name, size) VALUES ('{0}', 2000)",
    "INSERT INTO items (id, name) VALUES (NULL, '{0}')",
    "INSERT INTO moods VALUES ('{0}')",
    "INSERT INTO stays VALUES ('{0}', '[1,5)')",
    "DO $$ BEGIN RAISE EXCEPTION '{0}' USING DETAIL = '{0}', HINT = '{0}'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION '{0}' USING ERRCODE = '40001'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION '{0}' USING ERRCODE = 'XX000'; END $$",
    "SELECT pg_terminate_backend(pg_backend_pid()), '{0}'",
]


@pytest.fixture
def log(service: Service) -> "Log":
    """Watch what the service writes from now on."""
    return Log(service)


class Log:
    """What a service has written since."""

    def __init__(self, service: Service) -> None:
        self._file = service.log
        self._start = len(service.log.read_bytes())

    @property
    def text(self) -> str:
        """Return it."""
        return self._file.read_bytes()[self._start :].decode()


@pytest.mark.parametrize("way", WAYS)
def test_no_value_is_in_the_logs(service: Service, log: Log, way: str) -> None:
    """A secret that comes into an error, a task, a warning or a record by itself goes no further.

    The access log is that of uvicorn, and shows no query.
    """
    answer = service.client.post(f"/tell/{way}", params={"secret": CANARY})

    wait_until(lambda: f"POST /tell/{way} HTTP/1.1" in log.text and WAYS[way] in log.text)
    assert_silent(log, answer)


@pytest.mark.parametrize("values", BAD_VALUES, ids=lambda values: next(iter(values)))
def test_no_value_that_the_database_refused_is_in_the_logs(
    service: Service, log: Log, values: dict[str, Any]
) -> None:
    """Whatever rule it breaks."""
    service.client.post("/insert", json={"name": CANARY})
    body = json.dumps(values)

    answers = [
        service.client.post("/insert", content=body, headers={"authorization": CANARY, **JSON})
        for _ in range(2)
    ]

    assert answers[0].status_code >= 400
    assert_silent(log, *answers)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_literal_of_a_statement_is_in_the_logs(
    service: Service, log: Log, statement: str
) -> None:
    """Nor what PostgreSQL says of it: the row that fails, the text that is no number."""
    service.database.execute("DROP TABLE IF EXISTS stays, moods; DROP TYPE IF EXISTS mood")
    service.database.execute("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE moods (mood mood)")
    service.database.execute(
        "CREATE TABLE stays (who text, r int4range, EXCLUDE USING gist (r WITH &&))"
    )
    service.client.post("/statement", content="INSERT INTO stays VALUES ('first', '[1,5)')")

    answer = service.client.post("/statement", content=statement.format(CANARY))

    assert answer.status_code >= 400
    assert_silent(log, answer)


def test_what_fails_after_the_answer_tells_nothing(service: Service, log: Log) -> None:
    """A stream that is cut, a background task, and a model that refuses the answer."""
    with pytest.raises(httpx2.RemoteProtocolError):
        service.client.get("/tell-later", params={"secret": CANARY})
    afterwards = service.client.post("/tell-afterwards", params={"secret": CANARY})
    model = service.client.post("/tell-model", params={"secret": CANARY})

    wait_until(lambda: log.text.count("ck_items_size") >= 2)
    assert (afterwards.status_code, model.status_code) == (200, 500)
    assert_silent(log, afterwards, model)


def test_a_log_still_says_what_went_wrong(service: Service, log: Log) -> None:
    """SQLSTATE, constraint, table, the statement, each frame, and the words of the source."""
    service.client.post("/tell/context", params={"secret": CANARY})
    service.client.post("/tell/message", params={"secret": CANARY})
    service.client.post("/tell-model", params={"secret": CANARY})
    service.client.post("/statement", content="SELECT nothing FROM items WHERE name = 'x'")

    text = log.text
    assert "SQLSTATE 23514, constraint ck_items_size, table items, [SQL: INSERT INTO items" in text
    assert "RuntimeError: it went wrong" in text
    assert "RuntimeError: somebody came who is named …" in text
    assert "await session.execute(insert(Item).values(name=self._secret, size=9999))" in text
    assert "response.id (int_parsing), response.name (missing)" in text
    assert "SQLSTATE 42703, at nothing, [SQL: SELECT nothing FROM items WHERE name = …]" in text


def assert_silent(log: Log, *answers: httpx2.Response) -> None:
    """See that neither the log nor an answer shows a value."""
    for text in (log.text, *(answer.text for answer in answers)):
        assert not re.search(f".*({CANARY}|{PASSWORD}).*", text)


JSON = {"content-type": "application/json"}
