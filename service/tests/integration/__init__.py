"""Tests through HTTP and on a real PostgreSQL."""
