"""What `stillroom serve` can be told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Say which application is served where, by how many processes, and how they end."""

    application: str = "run:server"
    """The application, or a function without arguments that makes it, as module:name."""
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    """The path of a unix socket, instead of host and port."""
    workers: int = 1
    grace: int = 8
    """How long requests may take to end before they are cancelled, in seconds."""
    public: bool = False
    """Whether addresses that other machines reach are meant."""
    proxy: str | None = None
    """The addresses whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    access_log: bool = False
