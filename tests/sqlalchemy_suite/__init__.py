"""SQLAlchemy's own test suite, on a plain connection and in the sandbox."""
