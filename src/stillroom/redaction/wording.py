"""Which words of a message are the program's own: those that stand in its source."""

import ast
import builtins
import dis
import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, TracebackType

HIDDEN = "…"
"""What stands for the rest of a message."""


@dataclass(frozen=True)
class Wording:
    """Hold the texts and the names that stand in a file of Python."""

    texts: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    """The parts of its texts between placeholders that have two words or more, longest first."""
    names: frozenset[str] = frozenset()


def own_words(message: str, files: tuple[str, ...]) -> str:
    """Return what of a message stands in one of the files, and a mark for the rest.

    A text that stands there is shown if it is the whole message; of a longer one each part of two
    words or more. A single word might be a value that only happens to stand there, too.
    """
    wordings = [wording_of(file) for file in files]
    if any(message in wording.texts for wording in wordings):
        return message
    shown = bytearray(len(message))
    for phrase in (phrase for wording in wordings for phrase in wording.phrases):
        for start in _places(phrase, message):
            shown[start : start + len(phrase)] = b"\1" * len(phrase)
    return _masked(message, shown)


def own_names(message: str, files: tuple[str, ...], known: frozenset[str]) -> str:
    """Return a message of the interpreter without the names that stand nowhere in the files."""
    names = frozenset[str]().union(known, _BUILT_IN, *(wording_of(file).names for file in files))

    def show(found: re.Match[str]) -> str:
        return found[0] if names.issuperset(found[1].split(".")) else f"'{HIDDEN}'"

    return re.sub(r"'([^']*)'", show, message)


def is_of_the_interpreter(trace: TracebackType | None) -> bool:
    """Say whether it was no `raise` that raised, but an operation or a call."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code: CodeType = trace.tb_frame.f_code
    return code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]


@lru_cache(maxsize=256)
def wording_of(file: str) -> Wording:
    """Return what stands in a file; nothing where there is no source to be read."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return Wording()
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    phrases = {phrase for text in texts for phrase in _phrases(text)}
    return Wording(
        frozenset(texts),
        tuple(sorted(phrases, key=len, reverse=True)),
        frozenset(_names(tree)),
    )


def _phrases(text: str) -> Iterator[str]:
    for part in _PLACEHOLDER.split(text):
        stripped = part.strip()
        if " " in stripped and len(stripped) < _LONGEST:
            yield stripped


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.alias(name=name):
                yield from name.split(".")
            case ast.keyword(arg=str(name)):
                yield name
            case _:
                pass


def _places(phrase: str, message: str) -> Iterator[int]:
    start = message.find(phrase)
    while start >= 0:
        yield start
        start = message.find(phrase, start + 1)


def _masked(message: str, shown: bytearray) -> str:
    parts: list[str] = []
    for found in re.finditer(b"[\1]+|[\0]+", shown):
        part = message[slice(*found.span())]
        if found[0][0]:
            parts.append(part)
        elif not part.isspace():
            parts.append(HIDDEN)
    return " ".join(parts)


_LONGEST = 500
_PLACEHOLDER = re.compile(r"%[-#0-9.]*(?:\(\w*\))?[a-zA-Z]|\{[^{}]*\}|\n")
_BUILT_IN = frozenset({*dir(builtins), "NoneType", "coroutine", "builtin_function_or_method"})
