"""Take out each guard of the laws in turn and see a test go red: ``python tests/mutations.py``.

A guard that can be taken out without a test noticing is not kept by anything. The mutant is made in
a copy of the sources; the working tree is not touched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """Say which line keeps which law, what stands there without it, and which test must fail."""

    law: int
    guard: str
    file: str
    line: str
    without: str
    test: str


MUTATIONS = [
    Mutation(
        1,
        "the route commits before the response",
        "fastapi/route.py",
        "    overrides.check()\n    await unit.commit()\n",
        "    overrides.check()\n",
        "tests/laws/test_commit_before_response.py",
    ),
    Mutation(
        1,
        "the unit of work ends before the response is sent",
        "fastapi/route.py",
        "                    await unit.close()\n            return response\n",
        "                    pass\n            return response\n",
        "tests/laws/test_nothing_written.py",
    ),
    Mutation(
        1,
        "the COMMIT of an aborted transaction is refused",
        "engine/commit.py",
        '    event.listen(engine, "commit", check)\n',
        "",
        "tests/laws/test_commit_before_response.py",
    ),
    Mutation(
        1,
        "an aborted transaction is rolled back when its COMMIT is refused",
        "engine/commit.py",
        "            engine.dialect.do_rollback(connection.connection)\n",
        "",
        "tests/test_engine.py",
    ),
    Mutation(
        1,
        "an override that leaves writes uncommitted is an error",
        "fastapi/route.py",
        "    overrides.check()\n",
        "",
        "tests/fastapi/test_override.py",
    ),
    Mutation(
        1,
        "a redirect that is raised is committed",
        "fastapi/route.py",
        "                    if answer.status_code < 400:\n",
        "                    if answer.status_code < 200:\n",
        "tests/fastapi/test_unit_of_work.py",
    ),
    Mutation(
        1,
        "a handler that makes a success of an exception is refused",
        "fastapi/answers.py",
        "if is_good and has_lost_writes(scope):",
        "if False:",
        "tests/fastapi/test_answers.py",
    ),
    Mutation(
        2,
        "the teardown of function scope belongs to the work",
        "fastapi/route.py",
        '        request.scope["fastapi_function_astack"] = teardown\n',
        "",
        "tests/fastapi/test_unit_of_work.py",
    ),
    Mutation(
        2,
        "a connection that is lost at COMMIT is an unknown outcome",
        "session.py",
        "            failure = _failure(committing)\n",
        "            failure = committing.exception()\n",
        "tests/test_manager.py",
    ),
    Mutation(
        2,
        "a response of 400 or more is rolled back",
        "fastapi/route.py",
        "if response.status_code < 400:",
        "if response.status_code < 600:",
        "tests/laws/test_nothing_written.py",
    ),
    Mutation(
        2,
        "a cancellation that is due arrives before COMMIT is sent",
        "session.py",
        "        await asyncio.sleep(0)  #",
        "        #",
        "tests/test_manager.py",
    ),
    Mutation(
        2,
        "a COMMIT that was sent is waited for",
        "session.py",
        "            except asyncio.CancelledError as error:\n                cancelled = error\n",
        "            except asyncio.CancelledError:\n                task.cancel()\n"
        "                raise\n",
        "tests/test_manager.py",
    ),
    Mutation(
        2,
        "the wait for a COMMIT is shielded from anyio",
        "session.py",
        "CancelScope(shield=True)",
        "CancelScope(shield=False)",
        "tests/test_session.py",
    ),
    Mutation(
        2,
        "a COMMIT that is not answered has an unknown outcome",
        "session.py",
        "(remaining := deadline - clock()) > 0",
        "(remaining := 60.0)",
        "tests/laws/test_nothing_written.py",
    ),
    Mutation(
        2,
        "an ended session refuses work",
        "manager.py",
        "        close_resets_only=False,\n",
        "",
        "tests/laws/test_nothing_written.py",
    ),
    Mutation(
        3,
        "the connection is given back whoever is cancelled",
        "session.py",
        "ending = asyncio.ensure_future(end())",
        "ending = asyncio.ensure_future(asyncio.sleep(0))",
        "tests/test_manager.py",
    ),
    Mutation(
        3,
        "the connection of a COMMIT that hangs leaves the pool",
        "session.py",
        "    connection.detach()  # its place",
        "    # its place",
        "tests/test_manager.py",
    ),
    Mutation(
        3,
        "PostgreSQL stops the statement of a client that has left",
        "engine/__init__.py",
        '            "client_connection_check_interval": '
        'f"{self.client_check_interval * 1000:.0f}",\n',
        "",
        "tests/test_engine.py",
    ),
    Mutation(
        3,
        "PostgreSQL stops a statement at its deadline",
        "engine/__init__.py",
        '            "statement_timeout": f"{self.statement_timeout * 1000:.0f}",\n',
        "",
        "tests/laws/test_errors.py",
    ),
    Mutation(
        3,
        "an idle connection is pinged before it is handed out",
        "engine/pool.py",
        '    event.listen(engine, "checkout", ping)\n',
        "",
        "tests/test_engine.py",
    ),
    Mutation(
        3,
        "a connection with an open transaction is not taken back",
        "engine/pool.py",
        "if engine in _retired or not is_quiet(dbapi_connection):",
        "if engine in _retired:",
        "tests/fastapi/test_unit_of_work.py",
    ),
    Mutation(
        3,
        "a connection that cannot be rolled back leaves the pool",
        "session.py",
        "            _hang_up(self)\n",
        "            pass\n",
        "tests/test_manager.py",
    ),
    Mutation(
        4,
        "the wait for a connection is bounded",
        "engine/__init__.py",
        '        "pool_timeout": settings.pool_timeout,\n',
        "",
        "tests/laws/test_pool.py",
    ),
    Mutation(
        5,
        "database errors are answered as problems",
        "fastapi/answers.py",
        "        app.add_exception_handler(kind, answer)\n",
        "        pass\n",
        "tests/fastapi/test_answers.py",
    ),
    Mutation(
        5,
        "the last resort answers what nobody answered",
        "fastapi/answers.py",
        "    app.add_middleware(_LastResort, manager=manager)\n",
        "",
        "tests/laws/test_nothing_written.py",
    ),
    Mutation(
        5,
        "the messages of a refused request do not quote it",
        "fastapi/answers.py",
        'if item["type"] in _SILENT_ON_INPUT else',
        "if True else",
        "tests/laws/test_errors.py",
    ),
    Mutation(
        5,
        "the name of a field comes from the constraint",
        "problems.py",
        '            return tuple(column.name for column in getattr(constraint, "columns", ()))\n',
        "            return ()\n",
        "tests/laws/test_errors.py",
    ),
    Mutation(
        5,
        "no connection is one error on both drivers",
        "engine/__init__.py",
        '    event.listen(engine.sync_engine, "do_connect", _connect)\n',
        "",
        "tests/test_engine.py",
    ),
    Mutation(
        6,
        "a GET gets a read session",
        "fastapi/route.py",
        'frozenset({"GET", "HEAD", ',
        'frozenset({"HEAD", ',
        "tests/laws/test_read_only.py",
    ),
    Mutation(
        6,
        "a read session is read-only in PostgreSQL",
        "engine/reading.py",
        'READ_ONLY = {"default_transaction_read_only": "on"}',
        "READ_ONLY: dict[str, str] = {}",
        "tests/laws/test_read_only.py",
    ),
    Mutation(
        6,
        "a read that could tell has a transaction",
        "engine/reading.py",
        "            or not _is_the_same_alone(statement)\n",
        "",
        "tests/test_reading.py",
    ),
    Mutation(
        6,
        "a cursor has a transaction",
        "engine/reading.py",
        "            cursor.server_side\n            or dialect",
        "            dialect",
        "tests/test_reading.py",
    ),
    Mutation(
        6,
        "reads of a database whose default is REPEATABLE READ share a snapshot",
        "engine/reading.py",
        '            or dialect.default_isolation_level != "READ COMMITTED"\n',
        "",
        "tests/test_reading.py",
    ),
    Mutation(
        3,
        "a connection whose statement still runs is not taken back",
        "engine/pool.py",
        "return not is_busy and not driver_connection.is_in_transaction()",
        "return not driver_connection.is_in_transaction()",
        "tests/test_manager.py",
    ),
    Mutation(
        6,
        "no option makes a read session write",
        "engine/reading.py",
        '    event.listen(engine, "set_connection_execution_options", _refuse_to_write)\n',
        "",
        "tests/test_manager.py",
    ),
    Mutation(
        6,
        "a stream reads in a read session",
        "fastapi/stream.py",
        "self._manager.session(read_only=True)",
        "self._manager.session()",
        "tests/laws/test_read_only.py",
    ),
    Mutation(
        6,
        "a server that takes no writes loses the connection to it",
        "fastapi/route.py",
        'self._is_demoted = sqlstate_of(error) == "25006"',
        "self._is_demoted = False",
        "tests/laws/test_read_only.py",
    ),
    Mutation(
        7,
        "the facts of a thing are compared",
        "migrations/changes.py",
        "        if one != other and not (",
        "        if not one and not (",
        "tests/migrations/test_drift.py",
    ),
    Mutation(
        7,
        "the values of an enum are in their order",
        "migrations/catalogue.py",
        "ORDER BY enumsortorder",
        "ORDER BY enumlabel",
        "tests/migrations/test_drift.py",
    ),
    Mutation(
        7,
        "a name that PostgreSQL gave is no difference",
        "migrations/changes.py",
        "    (_by_meaning, _is_named_by_postgres),\n",
        "",
        "tests/migrations/test_drift.py",
    ),
    Mutation(
        7,
        "PostgreSQL's own spelling is read once more",
        "migrations/drift.py",
        "        theirs = await respell(connection, ours, theirs)\n",
        "",
        "tests/migrations/test_drift.py",
    ),
    Mutation(
        7,
        "models may need what a revision makes",
        "migrations/models.py",
        "        (migrated, removal),\n",
        "",
        "tests/migrations/test_drift.py",
    ),
    Mutation(
        7,
        "an env.py connects to the test's database alone",
        "testing/apart.py",
        "with routed(url), _unchanged_logging()",
        "with _unchanged_logging()",
        "tests/testing/test_migrations.py",
    ),
    Mutation(
        7,
        "an env.py does not take the loggers away",
        "testing/apart.py",
        "with routed(url), _unchanged_logging(), ",
        "with routed(url), ",
        "tests/testing/test_migrations.py",
    ),
    Mutation(
        7,
        "what a downgrade leaves behind is looked for",
        "testing/migrations.py",
        "if left := self._left(before):",
        "if left := list[str]():",
        "tests/testing/test_migrations.py",
    ),
    Mutation(
        7,
        "what is made again is compared",
        "testing/migrations.py",
        "        if different:\n",
        "        if not different:\n            return\n        if not names:\n",
        "tests/testing/test_migrations.py",
    ),
    Mutation(
        8,
        "nobody reads beside uncommitted writes",
        "testing/sandbox/gate.py",
        "return self.busy is None and self._blocker(waiting) is None",
        "return self.busy is None",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "a task that waits for itself is told at once",
        "testing/sandbox/gate.py",
        "if owner.task is not None and owner.task is session.task:",
        "if owner.task is not None and owner.task is None:",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "an error of a reader undoes the savepoint",
        "testing/sandbox/execution.py",
        "        else:\n            await sandbox.undo(session)\n"
        "            gate.release(session)\n",
        "        elif gate.owner is session:\n            await sandbox.undo(session)\n"
        "            gate.release(session)\n",
        "tests/testing/conformance/test_savepoints.py",
    ),
    Mutation(
        8,
        "SET LOCAL ends with its transaction",
        "testing/sandbox/transactions.py",
        "        session.parameters.local.clear()\n",
        "",
        "tests/testing/conformance/test_parameters.py",
    ),
    Mutation(
        8,
        "deferred constraints are checked at each COMMIT",
        "testing/sandbox/__init__.py",
        '        checks = "SET CONSTRAINTS ALL IMMEDIATE; " if rows else ""\n',
        '        checks = ""\n',
        "tests/testing/conformance/test_constraints.py",
    ),
    Mutation(
        8,
        "nobody ends the connection that all share",
        "testing/sandbox/statements.py",
        '    if functions & {"PG_TERMINATE_BACKEND", "PG_CANCEL_BACKEND"}:\n',
        "    if False:\n",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "a ping is no write",
        "testing/sandbox/prepared.py",
        "found[0] if found else _EMPTY\n",
        "found[0] if found else _UNKNOWN\n",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "an error within a savepoint stops no other connection",
        "testing/sandbox/execution.py",
        "            await sandbox.undo_to(session, session.transaction.savepoints[-1])\n",
        "            pass\n",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "each connection is told the isolation level of its own transaction",
        "testing/sandbox/session.py",
        '            "transaction_isolation": self.isolation,\n',
        "",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "constraints that a test has made are checked too",
        "testing/sandbox/execution.py",
        "                self._sandbox.forget_checks()\n",
        "                pass\n",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "a test ends in a rollback",
        "testing/sandbox/levels.py",
        '            sql = "ROLLBACK"\n',
        '            sql = "COMMIT"\n',
        "tests/testing/conformance/test_transactions.py",
    ),
    Mutation(
        8,
        "sequences are new in each test",
        "testing/sandbox/levels.py",
        '            sql += f"; {reset_sequences(gone[0].numbers)}"\n',
        "            pass\n",
        "tests/testing/conformance/test_sequences.py",
    ),
    Mutation(
        8,
        "another connection's cursor outlives a rollback",
        "testing/sandbox/execution.py",
        "        elif opens and gate.owner is None:\n            await sandbox.seal()\n",
        "",
        "tests/testing/conformance/test_streams.py",
    ),
    Mutation(
        8,
        "a read-only transaction cannot write",
        "testing/sandbox/execution.py",
        "        read_only = session.is_read_only and any(\n",
        "        read_only = False and any(\n",
        "tests/testing/conformance/test_read_only.py",
    ),
    Mutation(
        8,
        "a reader's savepoint holds nobody up",
        "testing/sandbox/execution.py",
        "        if gate.owner is session and session.transaction is not None:\n",
        "        if session.transaction is not None:\n            gate.own(session)\n",
        "tests/testing/conformance/test_savepoints.py",
    ),
    Mutation(
        8,
        "a connection does not see another one's temporary tables",
        "testing/sandbox/temporary.py",
        '        return "; ".join(table.turn() for table in others + own)\n',
        '        return ""\n',
        "tests/testing/conformance/test_schema.py",
    ),
    Mutation(
        8,
        "an idle connection is ended as its session says",
        "testing/sandbox/connection.py",
        "        self._timeouts.start()\n",
        "",
        "tests/testing/conformance/test_cancellation.py",
    ),
    Mutation(
        8,
        "names of cursors are a connection's own",
        "testing/sandbox/translation.py",
        '        return f"{self._number}.{name}"\n',
        "        return name\n",
        "tests/testing/conformance/test_streams.py",
    ),
    Mutation(
        8,
        "a long queue is no deadlock",
        "testing/sandbox/gate.py",
        "        elif held < self.wait:\n",
        "        elif held < 0:\n",
        "tests/testing/test_gate.py",
    ),
    Mutation(
        8,
        "a driver that is asked past the engines is refused",
        "testing/engines/drivers.py",
        "        setattr(module, name, wrap(original, self._ask))\n",
        "",
        "tests/testing/test_drivers.py",
    ),
    Mutation(
        8,
        "the environment leads an engine to no other server",
        "testing/engines/arguments.py",
        '    "hostaddr": "",\n',
        "",
        "tests/testing/test_arguments.py",
    ),
    Mutation(
        8,
        "a pool that outlives a test is bound anew",
        "testing/engines/__init__.py",
        "        raise DisconnectionError  # the pool makes a new one, for this target\n",
        "        return\n",
        "tests/testing/test_engines.py",
    ),
    Mutation(
        8,
        "a connection that is kept open does not cross into another database",
        "testing/engines/__init__.py",
        '    (Engine, "before_cursor_execute", _check_used),\n',
        "",
        "tests/testing/test_engines.py",
    ),
    Mutation(
        8,
        "a database that is being built is for its own threads",
        "testing/engines/__init__.py",
        "    if _route is not None and threading.current_thread() not in _route.others:\n",
        "    if _route is not None:\n",
        "tests/testing/test_engines.py",
    ),
    Mutation(
        8,
        "what a connection starts with outlives the first test",
        "testing/sandbox/__init__.py",
        "                    await self.backend.query(sql)\n",
        "                    pass\n",
        "tests/testing/test_engines.py",
    ),
    Mutation(
        8,
        "a refusal that was passed over fails its test",
        "pytest_plugin.py",
        '    if refusals and "stillroom_refusals" not in',
        '    if False and "stillroom_refusals" not in',
        "tests/plugin/test_plugin.py",
    ),
    Mutation(
        8,
        "a refusal that was passed over when a fixture ended fails its test, and no other",
        "pytest_plugin.py",
        "        result = yield\n        _fail_by_refusals(run, item)\n    except",
        "        result = yield\n    except",
        "tests/plugin/test_plugin.py",
    ),
    Mutation(
        8,
        "a run on a shared server drops no template of another project",
        "testing/run.py",
        "is_kept = self.server.is_private and bool(",
        "is_kept = bool(",
        "tests/plugin/test_servers.py",
    ),
    Mutation(
        8,
        "a run on a shared server leaves the databases of other roles alone",
        "testing/databases/__init__.py",
        """    "AND pg_has_role(datdba, 'USAGE') "  # another""",
        """    " "  # another""",
        "tests/plugin/test_servers.py",
    ),
    Mutation(
        8,
        "no engine goes to its URL after the run of tests",
        "testing/run.py",
        "direct_to(self._before or _ENDED)",
        "direct_to(None)",
        "tests/plugin/test_afterwards.py",
    ),
    Mutation(
        8,
        "the databases of a run that was killed are dropped by the next one",
        "testing/databases/__init__.py",
        "if number != self._number:  # its run was killed",
        "if number is None:",
        "tests/plugin/test_servers.py",
    ),
    Mutation(
        8,
        "a test that has not asked for a database of the run has the one that its URL names",
        "pytest_plugin.py",
        "        run.leave_alone()\n",
        "        pass\n",
        "tests/plugin/test_activation.py",
    ),
    Mutation(
        8,
        "an engine's URL does not lead to its server",
        "testing/engines/__init__.py",
        '    (Engine, "do_connect", _direct),\n',
        "",
        "tests/testing/test_engines.py",
    ),
    Mutation(
        8,
        "a test that has ended loses its transactions",
        "testing/sandbox/connection.py",
        "        self.session.lose()\n",
        "",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "runs on one server know which of them live",
        "testing/databases/__init__.py",
        '("SELECT pg_advisory_lock($1, $2)", _FAMILY, self._number)',
        '("SELECT 1")',
        "tests/testing/test_databases.py",
    ),
    Mutation(
        8,
        "a template is built by one run alone",
        "testing/databases/__init__.py",
        '        await self.execute("SELECT pg_advisory_lock($1, hashtext($2))", -_FAMILY, name)\n',
        "",
        "tests/testing/test_databases.py",
    ),
    Mutation(
        8,
        "a database that was left is dropped by no run",
        "testing/databases/__init__.py",
        "    \"AND shobj_description(oid, 'pg_database') IS NULL\"\n",
        "",
        "tests/testing/test_databases.py",
    ),
    Mutation(
        8,
        "a canary finds what has changed",
        "testing/fingerprint.py",
        "        if then != now:\n",
        "        if then is None:\n",
        "tests/plugin/test_canary.py",
    ),
    Mutation(
        8,
        "a canary looks after each test",
        "pytest_plugin.py",
        "    if found := run.look():\n",
        "    if found := False:\n",
        "tests/plugin/test_canary.py",
    ),
    Mutation(
        8,
        "tests that differ on clones are found",
        "testing/comparison.py",
        "clone.get(name, _NOT_RUN).kind",
        "sandbox.get(name, _NOT_RUN).kind",
        "tests/plugin/test_compare.py",
    ),
    Mutation(
        8,
        "a database that is kept has what was committed",
        "testing/sandbox/__init__.py",
        '"ROLLBACK TO SAVEPOINT s; COMMIT"',
        '"ROLLBACK"',
        "tests/plugin/test_keep.py",
    ),
    Mutation(
        8,
        "advisory locks end with their test",
        "testing/sandbox/__init__.py",
        "        return is_left and any(",
        "        return False and any(",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "what a test has set ends with it",
        "testing/sandbox/session.py",
        "        self.parameters.session = self._earlier.get(depth, Values())\n",
        "",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "a fixture that is asked for late undoes nothing of its test",
        "testing/run.py",
        "if isolation is None and (default.has_work(levels)",
        "if isolation is Ellipsis and (default.has_work(levels)",
        "tests/plugin/test_plugin.py",
    ),
    Mutation(
        8,
        "a cancellation meets no other statement",
        "testing/sandbox/execution.py",
        "            await self._cancelling  # else it would meet what runs next\n",
        "",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "what a transaction wrote ends with its ROLLBACK, in its turn",
        "testing/sandbox/connection.py",
        "            if not (commits and self._sandbox.may_commit_at_once(self.session)):\n",
        "            if not self._sandbox.may_commit_at_once(self.session):\n",
        "tests/testing/conformance/test_transactions.py",
    ),
    Mutation(
        8,
        "the loop of the run is run by one thread at a time",
        "testing/loop.py",
        "        with self._lock:\n            if self._loop.is_closed():\n",
        "        if True:\n            if self._loop.is_closed():\n",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "the end of a test does not overtake its last statement",
        "testing/loop.py",
        "        self._post(self._begin, work, future)\n",
        "        self._loop.call_soon_threadsafe(self._begin, work, future)\n",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "a Ctrl-C stops no work in the middle",
        "testing/loop.py",
        "            with uninterrupted():\n",
        "            if True:\n",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "an error of what enters a test's level is not passed over",
        "testing/sandbox/__init__.py",
        "        unanswered, self._unanswered = self._unanswered, []\n",
        "        unanswered, self._unanswered = list[Pending](), []\n",
        "tests/testing/test_levels.py",
    ),
    Mutation(
        8,
        "what is planned ahead is not done",
        "testing/wire/relay.py",
        'f"EXPLAIN (GENERIC_PLAN) {statement.text}"',
        "statement.text",
        "tests/testing/test_private_server.py",
    ),
    Mutation(
        8,
        "a template that is used is not dropped for its age",
        "testing/databases/__init__.py",
        "            await self._note_use(name)\n            await self._unlock_template(name)\n",
        "            await self._unlock_template(name)\n",
        "tests/testing/test_databases.py",
    ),
    Mutation(
        8,
        "a COMMIT lets those go on who wait for it",
        "testing/sandbox/__init__.py",
        "gate.busy is None and not gate.has_waiting",
        "gate.busy is None",
        "tests/testing/test_connection.py",
    ),
    Mutation(
        8,
        "a COMMIT that may fail is not answered before it is done",
        "testing/sandbox/__init__.py",
        'is_alone and self._checks == "" and',
        "is_alone and",
        "tests/testing/conformance/test_constraints.py",
    ),
    Mutation(
        8,
        "a finalizer that writes waits for nobody",
        "testing/loop.py",
        "if self._posted or not self._lock.acquire(blocking=False):",
        "if self._posted:",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "a finalizer runs no loop while that of the run is halted",
        "testing/loop.py",
        "                asyncio._set_running_loop(self._loop)\n",
        "                pass\n",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "a Ctrl-C leaves no test half undone",
        "testing/isolation.py",
        "with uninterrupted(), self.cost.measured():",
        "with self.cost.measured():",
        "tests/plugin/test_end.py",
    ),
    Mutation(
        8,
        "a forked process does not end the work of its parent",
        "testing/loop.py",
        "        self._check()\n        if self._posted",
        "        if self._posted",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "what was sent to the sandbox comes before the end of its test",
        "testing/loop.py",
        "if self._posted or not self._lock.acquire(blocking=False):",
        "if not self._lock.acquire(blocking=False):",
        "tests/testing/test_loop.py",
    ),
    Mutation(
        8,
        "a test does not end beside a statement that is under way",
        "testing/sandbox/__init__.py",
        "return all(it.is_idle for it in list(self.connections.values()))",
        "return True",
        "tests/testing/test_levels.py",
    ),
    Mutation(
        8,
        "a test ends by itself only where all that it sent has succeeded",
        "testing/sandbox/__init__.py",
        "if self.temporary or any(it.error is not None for it in self._unanswered):",
        "if self.temporary:",
        "tests/testing/test_levels.py",
    ),
    Mutation(
        8,
        "temporary tables are known to end with their test",
        "testing/sandbox/__init__.py",
        "if self.temporary or any(it.error is not None for it in self._unanswered):",
        "if any(it.error is not None for it in self._unanswered):",
        "tests/testing/test_levels.py",
    ),
    Mutation(
        8,
        "who writes is not held to what a reader started with",
        "testing/sandbox/execution.py",
        "await sandbox.prepare(shared(session.parameters.startup))",
        "await sandbox.prepare(session.parameters.startup)",
        "tests/testing/conformance/test_read_only.py",
    ),
    Mutation(
        8,
        "no test begins within a transaction of a wider scope",
        "testing/sandbox/__init__.py",
        "            self._refuse_unfinished()\n",
        "",
        "tests/testing/test_refusals.py",
    ),
    Mutation(
        8,
        "a constraint that a function has made is checked too",
        "testing/sandbox/execution.py",
        "if statement.changes_schema or self._sandbox.writers.may_do_anything(statement):",
        "if statement.changes_schema:",
        "tests/testing/conformance/test_constraints.py",
    ),
]


def main() -> int:
    """Try each mutation; return 1 when a mutant survives."""
    chosen = [m for m in MUTATIONS if not sys.argv[1:] or m.test in sys.argv]
    survivors = 0
    for mutation in chosen:
        began = time.monotonic()
        failed = first_failure(mutation)
        seconds = time.monotonic() - began
        verdict = f"red: {failed}" if failed else "SURVIVED"
        survivors += not failed
        print(
            f"law {mutation.law}  {mutation.guard}\n       {verdict} ({seconds:.0f} s)", flush=True
        )
    print(f"{len(chosen) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


def first_failure(mutation: Mutation) -> str | None:
    """Run the test on the mutant; return the name of the test that failed, or None."""
    with tempfile.TemporaryDirectory() as name:
        mutant = Path(name)
        mutant.chmod(0o755)
        shutil.copytree(ROOT / "src", mutant / "src")
        source = mutant / "src" / "stillroom" / mutation.file
        text = source.read_text()
        if text.count(mutation.line) != 1:
            message = f"{mutation.file} has {mutation.line!r} {text.count(mutation.line)} times"
            raise SystemExit(message)
        source.write_text(text.replace(mutation.line, mutation.without))
        return _run(mutation.test, mutant / "src")


def _run(test: str, sources: Path) -> str | None:
    folder = ROOT / "service" if test.startswith("service/") else ROOT
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"),
            *("-p", "no:cacheprovider", str(ROOT / test)),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if answer.returncode == 0:
        return None
    failed = [line for line in answer.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        raise SystemExit(answer.stdout + answer.stderr)
    return failed[0].split(" - ")[0].removeprefix("FAILED ").removeprefix("ERROR ")


if __name__ == "__main__":
    sys.exit(main())
