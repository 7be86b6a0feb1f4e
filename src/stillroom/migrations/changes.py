"""What differs between two catalogues, one sentence a difference."""

import re
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from stillroom.migrations.catalogue import Catalogue, Thing


class Wording(NamedTuple):
    """Say how a difference is told: with both values, or with the kind of what is on one side."""

    differ: str
    left_only: str
    right_only: str


class Change(NamedTuple):
    """Say of one thing what it is on the left and on the right.

    Without an `attribute` the whole thing is missing on one side, where the text is None; with one,
    None says that the thing has nothing of the kind.
    """

    thing: Thing
    attribute: str
    left: str | None
    right: str | None

    def subject(self, default_schema: str) -> str:
        """Name the thing: `users.email`, `type mood`, `index ix_jars_size of pantry.jars`."""
        thing = self.thing
        path = [thing.table, thing.name] if thing.kind == "column" else [thing.table or thing.name]
        if thing.schema not in ("", default_schema):
            path.insert(0, thing.schema)
        place = ".".join(path)
        if thing.kind in ("table", "column"):
            return place
        return f"{thing.kind} {thing.name} of {place}" if thing.table else f"{thing.kind} {place}"

    def text(self, wording: Wording) -> str:
        """Say the difference."""
        if self.attribute:
            none = f"no {self.attribute}"
            return wording.differ.format(self.left or none, self.right or none)
        only = wording.left_only if self.right is None else wording.right_only
        return only.format(self.thing.kind)


def changes(left: Catalogue, right: Catalogue) -> list[Change]:
    """Compare two catalogues.

    The order of columns is no difference, nor is the name that PostgreSQL itself gave to a
    constraint or an index of the left side. What belongs to a table that is missing is not told.
    """
    relations = _relations(left), _relations(right)
    found: list[Change] = []
    for one, other in _pairs(left.things, right.things):
        if one is not None and other is not None:
            found += _differences(one, other)
        elif one is not None and not _is_within_missing(one, *relations):
            found.append(Change(one, "", one.name, None))
        elif other is not None and not _is_within_missing(other, *relations[::-1]):
            found.append(Change(other, "", None, other.name))
    return sorted(found, key=_place)


def _place(change: Change) -> tuple[str, str, bool, str, str]:
    thing = change.thing
    return thing.schema, thing.table or thing.name, bool(thing.table), thing.kind, thing.name


def _relations(catalogue: Catalogue) -> dict[tuple[str, str], str]:
    return {it.relation: it.kind for it in catalogue.things if it.kind in _RELATIONS}


def _is_within_missing(
    thing: Thing, here: dict[tuple[str, str], str], there: dict[tuple[str, str], str]
) -> bool:
    return bool(thing.table) and here.get(thing.relation) != there.get(thing.relation)


def _pairs(left: list[Thing], right: list[Thing]) -> Iterator[tuple[Thing | None, Thing | None]]:
    for key, is_eligible in _RULES:
        candidates = {key(it): it for it in right}
        paired: set[int] = set()
        for one in left:
            if is_eligible(one) and (other := candidates.pop(key(one), None)) is not None:
                paired |= {id(one), id(other)}
                yield one, other
        left = [it for it in left if id(it) not in paired]
        right = [it for it in right if id(it) not in paired]
    yield from ((it, None) for it in left)
    yield from ((None, it) for it in right)


def _by_all(thing: Thing) -> Hashable:
    return _by_name(thing), _by_meaning(thing)


def _by_name(thing: Thing) -> Hashable:
    return thing.kind, thing.schema, thing.table, thing.name


def _by_meaning(thing: Thing) -> Hashable:
    return thing.kind, thing.schema, thing.table, tuple(sorted(thing.facts.items()))


def _is_any(_thing: Thing) -> bool:
    return True


def _is_nameable(thing: Thing) -> bool:
    return thing.kind in ("constraint", "index")


def _is_named_by_postgres(thing: Thing) -> bool:
    return _is_nameable(thing) and _GIVEN.search(thing.name) is not None


def _differences(left: Thing, right: Thing) -> Iterator[Change]:
    if left.name != right.name and not _is_named_by_postgres(left):
        yield Change(left, "name", left.name, right.name)
    for attribute in sorted(left.facts.keys() | right.facts.keys()):
        one, other = left.facts.get(attribute), right.facts.get(attribute)
        # A sequence that is on one side alone is told by the default or the identity.
        if one != other and not (attribute == "sequence" and None in (one, other)):
            yield Change(left, attribute, one, other)


_RELATIONS = frozenset({"table", "foreign table", "view", "materialized view"})

# The first that fits makes the pair.
_RULES: list[tuple[Callable[[Thing], Hashable], Callable[[Thing], bool]]] = [
    (_by_all, _is_any),
    (_by_meaning, _is_named_by_postgres),
    (_by_name, _is_any),
    (_by_meaning, _is_nameable),
]

# https://www.postgresql.org/docs/current/sql-createtable.html: "a system-generated name is used"
_GIVEN = re.compile(r"_(pkey|key|fkey|check|excl|idx)\d*$")
