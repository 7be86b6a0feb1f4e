"""Law 6: a GET cannot write; PostgreSQL itself refuses."""

import httpx2
import pytest

from tests.laws.conftest import Service


@pytest.mark.parametrize("form", ["orm", "core", "second-transaction", "function", "stream"])
def test_a_write_in_a_get_is_refused(service: Service, form: str) -> None:
    """Each form of write in a GET is a 500, and nothing is written."""
    response = service.client.get(f"/write/{form}", params={"name": f"get-{form}"})

    assert (response.status_code, service.rows(f"get-{form}")) == (500, 0)


def test_the_log_names_the_route_that_wrote_in_its_read_session(service: Service) -> None:
    """A write in a read session is a mistake of the program, and the log says whose."""
    service.client.get("/write/core", params={"name": "logged"})

    assert "GET /write/{form} wrote in its read session" in service.log.read_text()


def test_a_route_may_choose_its_kind_of_session(service: Service) -> None:
    """`unit_of_work` has the last word, in both directions."""
    writes = service.client.get("/writes-by-choice", params={"name": "chosen-get"})
    reads = service.client.post("/reads-by-choice", params={"name": "chosen-post"})

    assert (writes.status_code, service.rows("chosen-get")) == (200, 1)
    assert (reads.status_code, service.rows("chosen-post")) == (500, 0)


def test_a_connection_that_read_can_write_again(service: Service) -> None:
    """Read-only ends with its unit of work: the pool's connections serve both."""
    with httpx2.Client(base_url=service.client.base_url) as client:
        for number in range(20):
            client.get("/items", params={"name": "none"})
            written = client.post("/returned-model", params={"name": f"again-{number}"})
            assert written.status_code == 200


@pytest.mark.parametrize("path", ["/returned-model", "/inserted"])
def test_a_write_session_on_a_database_that_takes_no_writes_is_a_503(
    service: Service, path: str
) -> None:
    """A demoted primary: 503 with Retry-After, and the connection to it is discarded."""
    if "pgbouncer" in service.url:
        pytest.skip("PgBouncer keeps the session that stands for a demoted primary here")
    service.client.post("/returned-model", params={"name": f"before{path}"})
    pids = set(_pids(service))
    service.client.post("/statement", content="SET default_transaction_read_only = on")

    answers = [service.client.post(path, params={"name": f"demoted{path}-{n}"}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert answers[0].json()["code"] == "read_only_database"
    assert len(pids - set(_pids(service))) == 1


def _pids(service: Service) -> list[int]:
    rows = service.database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'stillroom'"
    )
    return [pid for (pid,) in rows.fetchall()]
