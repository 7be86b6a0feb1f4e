"""The application that an import string names."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from stillroom.errors import ConfigurationError
from stillroom.redaction import describe, show


def load_application(name: str) -> Any:
    """Import what `module:name` names; call it where it takes no arguments, as a factory does.

    Raises ConfigurationError where there is no application; the traceback of an error in the
    imported code is written to stderr before.
    """
    module, colon, attributes = name.partition(":")
    if not colon or not module or not attributes:
        raise ConfigurationError(f"{name!r} names no application. Write module:name: run:server.")
    found: Any = _import(module)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigurationError(
                f"{name}: {module} was imported, and has no {attributes!r} in it. Write the name "
                "of the application, or of a function that makes it."
            )
        found = getattr(found, attribute)
    if not callable(found):
        raise ConfigurationError(f"{name} is a {type(found).__name__}, and no application.")
    return _made(name, found) if _is_factory(found) else found


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failure(f"{module} could not be imported", error) from error
        raise ConfigurationError(
            f"There is no module {error.name!r} in {Path.cwd()}. Start in the service's folder, "
            "or name another application."
        ) from error
    except Exception as error:
        raise _failure(f"{module} could not be imported", error) from error


def _is_factory(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _made(name: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        raise _failure(f"{name} made no application", error) from error


def _failure(what: str, error: Exception) -> ConfigurationError:
    show(error)
    return ConfigurationError(f"{what}: {type(error).__name__}: {describe(error)}")
