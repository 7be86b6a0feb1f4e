"""The server: ``stillroom serve run:server``, or any other for ASGI."""

from app import init_app

server = init_app()
