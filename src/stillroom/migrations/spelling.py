"""What PostgreSQL spells in two ways and means the same."""

from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from stillroom.migrations.catalogue import Catalogue, Thing, quote, read, run


async def respell(connection: AsyncConnection, models: Catalogue, migrated: Catalogue) -> Catalogue:
    """Take the models' spelling of what means the same in the migrated database.

    The connection is to the models' database, where it leaves nothing.
    """
    ours = {(it.kind, it.relation, it.name): it for it in models.things}
    things: list[Thing] = []
    for theirs in migrated.things:
        mine = ours.get((theirs.kind, theirs.relation, theirs.name))
        fact = "default" if theirs.kind == "column" else "definition"
        is_same = {"column": _has_same_value, "constraint": _is_same, "index": _is_same}
        if (
            mine is not None
            and theirs.kind in is_same
            and mine.facts.get(fact, "") != theirs.facts.get(fact, "")
            and mine.facts.keys() == theirs.facts.keys()
            and await is_same[theirs.kind](connection, mine, theirs)
        ):
            things.append(replace(theirs, facts={**theirs.facts, fact: mine.facts[fact]}))
        else:
            things.append(theirs)
    return migrated._replace(things=things)


async def _has_same_value(connection: AsyncConnection, one: Thing, other: Thing) -> bool:
    values = [
        f"CAST(CAST({it.facts['default'].removeprefix('DEFAULT ')} AS {one.facts['type']}) AS text)"
        for it in (one, other)
    ]
    savepoint = await connection.begin_nested()
    try:
        # In an unusual time zone, so that what depends on it has another value.
        await run(connection, "SET LOCAL timezone = 'Pacific/Chatham'")
        answer = await run(connection, f"SELECT {' = '.join(values)}")
        return answer.scalar() is True
    except SQLAlchemyError:
        return False  # it cannot be evaluated, so its spelling has to do
    finally:
        await savepoint.rollback()


async def _is_same(connection: AsyncConnection, one: Thing, other: Thing) -> bool:
    # PostgreSQL spells a condition as it has read it, and reading its own spelling may change it
    # (varchar IN a list). A revision that was written from a dump is one spelling ahead.
    return await _spelled_anew(connection, one) == await _spelled_anew(connection, other)


async def _spelled_anew(connection: AsyncConnection, thing: Thing) -> str:
    definition = thing.facts["definition"]
    name = f"stillroom_{thing.name}"[:60]
    table = f"{quote(thing.schema)}.{quote(thing.table)}"
    savepoint = await connection.begin_nested()
    try:
        if thing.kind == "constraint":
            await run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {quote(name)} {definition}")
        else:
            await run(connection, definition.replace(" INDEX ON ", f" INDEX {quote(name)} ON ", 1))
        again = await read(connection)
        return next(it.facts["definition"] for it in again.things if it.name == name)
    except SQLAlchemyError:
        return definition  # it cannot be made of the models' columns, so it is another
    finally:
        await savepoint.rollback()
