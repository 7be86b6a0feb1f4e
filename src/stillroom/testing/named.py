"""What a setting names by a module and what is in it."""

from importlib import import_module
from typing import TypeVar

from stillroom.errors import ConfigurationError

T = TypeVar("T")


def find(setting: str, name: str, kind: type[T]) -> T:
    """Return the object that a name such as app.models:Base.metadata stands for.

    Raises ConfigurationError, with the setting's name, where there is none of this kind, and what
    importing the module raises.
    """
    module, _, path = name.partition(":")
    found: object = import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute, None)
    if found is None or not isinstance(found, kind):
        msg = (
            f"{setting} is {name!r}, which is {'nothing' if found is None else repr(found)} and no "
            f"{kind.__name__}. Name a module and what is in it, as in package.module:name"
        )
        raise ConfigurationError(msg)
    return found
