"""Whose fixture a test gets, where the project or another plugin has one of the same name."""

from tests.projects import Project

OF_THE_PROJECT = """
import pytest


@pytest.fixture
def client():
    return "of the project"
"""

OF_A_PLUGIN = """
import pytest


@pytest.fixture
def queries():
    return "of a plugin"


@pytest.fixture(name="session")
def a_session_of_another_name():
    return "of a plugin"
"""

CONFTEST = """
import pytest

pytest_plugins = ["of_the_project"]


@pytest.fixture
def app(app):
    return app, "of the conftest"
"""

TESTS = """
from application import app as application


def test_one(app, client, queries, session, database_url):
    assert app == (application, "of the conftest")
    assert client == "of the project"
    assert queries == "of a plugin"
    assert session == "of a plugin"
    assert database_url.startswith("postgresql+asyncpg://")
"""


def test_every_other_fixture_goes_before_one_of_the_plugin(project: Project) -> None:
    """One of the project, of a plugin of its own, or of a plugin that was there before."""
    project.write(
        conftest=CONFTEST, of_the_project=OF_THE_PROJECT, of_a_plugin=OF_A_PLUGIN, test_one=TESTS
    )

    for options in ([], ["-n", "1"]):
        outcome = project.run("-p", "of_a_plugin", *options)

        assert outcome.counts == "1 passed", outcome.output
