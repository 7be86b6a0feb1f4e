"""The ways to keep tests apart, each a pytest plugin that gives the fixture `sessions`."""
