"""What a relationship of a select's models leads to, as a select that can stand within it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, inspect, select
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, aliased
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from stillroom.joins import AnySelect


@dataclass(frozen=True)
class Related:
    """Hold what a relationship leads to from each row of a select."""

    statement: AnySelect
    """The select of its rows, in the order of the relationship, else of their primary key."""
    of: Any
    """The entity of the outer select that it belongs to."""
    is_many: bool
    may_be_none: bool


def related(statement: AnySelect, name: str) -> Related | None:
    """Return what a relationship of this name leads to, of the first entity that has one."""
    for described in statement.column_descriptions:
        entity: Any = described.get("entity")
        if entity is None or described["expr"] is not entity:
            continue
        mapper: Mapper[Any] = inspect(entity).mapper
        found = mapper.relationships.get(name)
        if found is not None:
            return _from(entity, found)
    return None


def _from(entity: Any, relationship: RelationshipProperty[Any]) -> Related:
    # By another name: what it leads to may be of the same table.
    target = aliased(relationship.entity)
    joined = getattr(entity, relationship.key).of_type(target)
    order = _order(relationship, target)
    return Related(
        statement=select(target).where(joined).order_by(*order),
        of=entity,
        is_many=bool(relationship.uselist),
        may_be_none=not _is_always_there(relationship),
    )


def _order(relationship: RelationshipProperty[Any], target: Any) -> Sequence[Any]:
    mapper = relationship.mapper
    columns: Sequence[Any] = relationship.order_by or mapper.primary_key

    def of_target(element: Any, **_: Any) -> Any:
        if not mapper.columns.contains_column(element):
            return None
        return getattr(target, mapper.get_property_by_column(element).key)

    adapted: list[ColumnElement[Any]] = [
        replacement_traverse(column, {}, of_target) for column in columns
    ]
    return adapted


def _is_always_there(relationship: RelationshipProperty[Any]) -> bool:
    """Say whether foreign keys see to it that there is a row for each."""
    is_to_one = relationship.direction is RelationshipDirection.MANYTOONE
    if not is_to_one or relationship.mapper.inherits is not None:
        return False
    pairs = relationship.local_remote_pairs or []
    compared = sum(it.__visit_name__ == "binary" for it in iterate(relationship.primaryjoin))
    return compared == len(pairs) and all(
        not local.nullable and local.references(remote) for local, remote in pairs
    )
