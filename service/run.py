"""The server: ``uvicorn run:server``."""

from app import init_app

server = init_app()
