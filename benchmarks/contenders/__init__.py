"""The users API of the article, written by each of those that are compared: an ASGI `app` each.

All have the article's three routes, on the database that DATABASE_DSN names.
"""
