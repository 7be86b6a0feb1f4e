"""Tests on a real PostgreSQL: the sandbox, clones, counted queries; what the pytest plugin uses."""
