"""The command `stillroom`."""

import sys
from pathlib import Path
from typing import Annotated

from stillroom.errors import StillroomError

try:
    import typer
except ModuleNotFoundError:
    sys.exit("The command needs more than the library does: pip install 'stillroom[cli]'")

_commands = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; what cannot be done is said in a sentence, with exit code 1."""
    try:
        _commands()
    except StillroomError as error:
        sys.exit(f"stillroom: {error}")


@_commands.callback()
def stillroom() -> None:
    """FastAPI on async SQLAlchemy 2, with migrations and pytest on a real PostgreSQL."""


@_commands.command()
def dev(
    application: Annotated[
        str, typer.Argument(help="The application, as module:name.")
    ] = "run:server",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 for any.", min=0, max=65535)
    ] = 8000,
    reload: Annotated[bool, typer.Option(help="Start anew when a Python file changes.")] = True,
    migrate: Annotated[bool, typer.Option(help="Migrate the database to head first.")] = True,
) -> None:
    """Serve this folder's service, with a database of its own unless DB_CONFIG names one.

    Ctrl-C, SIGTERM and SIGHUP stop everything in order; the exit code is then 0. It is 1 when a
    part could not be started, or died.
    """
    from stillroom.development.supervisor import Options, develop  # noqa: PLC0415  (no other command needs it)

    develop(Options(Path.cwd(), application, host, port, reload, migrate))


@_commands.command()
def serve(  # noqa: PLR0917  (typer gives each its name)
    application: Annotated[
        str, typer.Argument(help="The application, or a function that makes it, as module:name.")
    ] = "run:server",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port to listen on; 0 for any.", min=0, max=65535)
    ] = 8000,
    uds: Annotated[
        str | None, typer.Option(help="A unix socket to listen on, instead of host and port.")
    ] = None,
    workers: Annotated[int, typer.Option(help="How many processes serve.", min=1)] = 1,
    grace: Annotated[
        int, typer.Option(help="How many seconds requests may take to end at a stop.", min=0)
    ] = 8,
    public: Annotated[
        bool,
        typer.Option("--public", help="Listen where other machines get; there is no login yet."),
    ] = False,
    proxy: Annotated[
        str | None,
        typer.Option(help="Believe X-Forwarded-For and -Proto of these addresses, by commas."),
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
) -> None:
    """Serve this folder's application in production: no reload, no migration.

    SIGTERM, SIGHUP and Ctrl-C stop it: no request is accepted any more, those under way end, the
    lifespan closes the pools; the exit code is then 0. A worker that dies is started anew. The
    pools of all workers together fit into what PostgreSQL has (max_connections), or nothing starts.
    """
    from stillroom.serving.options import Options  # noqa: PLC0415  (as above)
    from stillroom.serving.supervisor import serve  # noqa: PLC0415

    serve(
        Options(
            application=application,
            host=host,
            port=port,
            uds=uds,
            workers=workers,
            grace=grace,
            public=public,
            proxy=proxy,
            access_log=access_log,
        )
    )


@_commands.command(context_settings={"ignore_unknown_options": True})
def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PYTEST ARGUMENTS]...", help="What to give to pytest."),
    ] = None,
) -> None:
    """Run the tests of this folder twice, in the sandbox and on clones, and say what differs.

    With pytest-randomly give both runs one order: -p no:randomly. The exit code is 0 when all
    outcomes are alike, 1 when some differ, 2 when pytest could not run the tests.
    """
    from stillroom.testing.comparison import ComparisonError, compare  # noqa: PLC0415  (as above)

    try:
        differences = compare(arguments or [], typer.echo)
    except ComparisonError as error:
        typer.echo(f"stillroom: {error}", err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(1 if differences else 0)
