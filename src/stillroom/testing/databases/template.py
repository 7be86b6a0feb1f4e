"""The database that those of a run are copies of: built once, and kept by its digest."""

from typing import Protocol

from stillroom.errors import StillroomError
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.engines import routed
from stillroom.testing.loop import SharedLoop


class TemplateError(StillroomError):
    """Report that the tables of the tests could not be made; its cause says why."""


class Schema(Protocol):
    """Where the tables of a project come from."""

    def digest(self) -> str:
        """Return a word that changes with what `build` makes."""
        ...

    def build(self, url: str) -> None:
        """Make the tables in an empty database, to which every engine of the process is sent."""
        ...


class Template:
    """Build the tables of a project when the first test needs them; on one server only one does."""

    def __init__(
        self,
        schema: Schema,
        loop: SharedLoop,
        server: Server,
        databases: Databases,
    ) -> None:
        self.built = ""
        self._schema = schema
        self._loop = loop
        self._server = server
        self._databases = databases
        self._name: str | None = None
        self._failure: Exception | None = None

    @property
    def is_there(self) -> bool:
        """Say whether a test has asked for it before, so that asking again costs nothing."""
        return self._name is not None

    @property
    def name(self) -> str:
        """Return the name of the database, which exists and is whole.

        It is built once. Where that failed, each test that asks gets a TemplateError.
        """
        if self._failure is None and self._name is None:
            try:
                self._name = self._find_or_build()
            except Exception as failure:  # noqa: BLE001  (it is raised for each test that asks)
                self._failure = failure
        if self._name is None:
            msg = (
                "The tables for the tests could not be made, so no test has a database: "
                f"{type(self._failure).__name__}: {self._failure}"
            )
            raise TemplateError(msg) from self._failure
        return self._name

    def _find_or_build(self) -> str:
        name = self._loop.call(self._databases.template_name(self._schema.digest()))
        if self._loop.call(self._databases.begin_template(name)):
            is_whole = False
            try:
                url = self._server.url(name)
                with routed(url):
                    self._schema.build(url)
                is_whole = True
                self.built = name
            finally:
                self._loop.call(self._databases.end_template(name, is_whole=is_whole))
        return name
