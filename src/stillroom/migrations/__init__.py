"""Alembic in code: an environment in one call, upgrades from a running loop, and drift."""

from stillroom.migrations.drift import Difference, drift
from stillroom.migrations.environment import run_environment
from stillroom.migrations.revisions import script_location, upgrade

__all__ = [
    "Difference",
    "drift",
    "run_environment",
    "script_location",
    "upgrade",
]
