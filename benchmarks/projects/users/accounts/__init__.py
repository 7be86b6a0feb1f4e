"""A small users API."""
