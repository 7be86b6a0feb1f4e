"""What a database is made of, as PostgreSQL itself describes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class Thing:
    """Describe one object: what it is, where it belongs, and its facts, in PostgreSQL's words.

    `table` is the relation of a column, a constraint, an index or a trigger; `schema` is empty for
    what has none.
    """

    kind: str
    schema: str
    table: str
    name: str
    facts: Mapping[str, str]

    @property
    def relation(self) -> tuple[str, str]:
        """Return the schema and name of the relation that this is, or is a part of."""
        return self.schema, self.table or self.name


class Catalogue(NamedTuple):
    """Hold all objects of a database but those of PostgreSQL itself and of extensions."""

    default_schema: str
    things: list[Thing]


async def read(connection: AsyncConnection) -> Catalogue:
    """Describe the database.

    Read are schemas, extensions, types, sequences, tables with columns, constraints and indexes,
    views, functions and triggers. Not read are rights, policies, rules and storage. The sequence
    of a serial or identity column is a fact of the column: its name may be any.
    """
    schema: str | None = await connection.scalar(text("SELECT current_schema()"))
    # Names are shown without the default schema, and with every other one.
    await connection.execute(
        text("SELECT set_config('search_path', quote_ident(:schema), true)"),
        {"schema": schema or "public"},
    )
    rows = (await connection.execute(text(_QUERY))).all()
    return Catalogue(
        schema or "public",
        [
            Thing(kind, place, table, name, json.loads(facts))
            for kind, place, table, name, facts in rows
        ],
    )


async def run(connection: AsyncConnection, statement: str) -> CursorResult[Any]:
    """Run a statement as it is, whatever "%" or ":" there is in it."""
    return await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def quote(name: str) -> str:
    """Quote a name, for a statement."""
    return '"' + name.replace('"', '""') + '"'


# https://www.postgresql.org/docs/current/catalogs.html and functions-info.html
_QUERY = r"""
WITH schemas AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), dependent AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
  SELECT c.*, nspname FROM pg_class AS c JOIN schemas AS s ON s.oid = relnamespace
  WHERE ('pg_class'::regclass, c.oid) NOT IN (TABLE dependent)
), sequences AS (
  SELECT r.oid, nspname, relname, owned.refobjid, owned.refobjsubid, concat(
    'AS ', seqtypid::regtype, ' START ', seqstart, ' INCREMENT ', seqincrement,
    ' MINVALUE ', seqmin, ' MAXVALUE ', seqmax, ' CACHE ', seqcache,
    CASE WHEN seqcycle THEN ' CYCLE' END
  ) AS sequence
  FROM relations AS r JOIN pg_sequence ON seqrelid = r.oid
  LEFT JOIN pg_depend AS owned ON owned.classid = 'pg_class'::regclass AND owned.objid = r.oid
    AND owned.refclassid = 'pg_class'::regclass AND owned.deptype IN ('a', 'i')
), things (kind, schema, relation, name, facts) AS (

  SELECT 'schema', '', '', nspname, '{}'::jsonb FROM schemas

  UNION ALL
  SELECT 'extension', '', '', extname, jsonb_build_object('schema', extnamespace::regnamespace)
  FROM pg_extension WHERE extname <> 'plpgsql'

  UNION ALL
  SELECT 'type', nspname, '', typname, jsonb_build_object(
    'values', (
      SELECT 'ENUM (' || string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) || ')'
      FROM pg_enum WHERE enumtypid = t.oid
    ),
    'definition', CASE typtype
      WHEN 'd' THEN concat(
        'DOMAIN ', format_type(typbasetype, typtypmod),
        ' COLLATE ' || nullif(typcollation, 0)::regcollation,
        ' DEFAULT ' || typdefault, CASE WHEN typnotnull THEN ' NOT NULL' END, (
          SELECT string_agg(' ' || pg_get_constraintdef(oid), '' ORDER BY pg_get_constraintdef(oid))
          FROM pg_constraint WHERE contypid = t.oid AND contype = 'c'
        ))
      WHEN 'c' THEN (
        SELECT '(' || string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod),
                                 ', ' ORDER BY attnum) || ')'
        FROM pg_attribute WHERE attrelid = typrelid AND NOT attisdropped
      )
      WHEN 'r' THEN (
        SELECT 'RANGE OF ' || format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid
      ) END,
    'comment', quote_literal(obj_description(t.oid, 'pg_type'))
  )
  FROM pg_type AS t JOIN schemas AS s ON s.oid = typnamespace
  WHERE (typtype IN ('e', 'd', 'r') OR typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c'))
    AND ('pg_type'::regclass, t.oid) NOT IN (TABLE dependent)

  UNION ALL
  SELECT 'sequence', nspname, '', relname, jsonb_build_object('definition', sequence)
  FROM sequences WHERE refobjid IS NULL

  UNION ALL
  SELECT CASE relkind WHEN 'f' THEN 'foreign table' WHEN 'v' THEN 'view'
                      WHEN 'm' THEN 'materialized view' ELSE 'table' END,
    nspname, '', relname, jsonb_build_object(
    'definition', CASE WHEN relkind IN ('v', 'm')
                       THEN 'AS' || regexp_replace(pg_get_viewdef(oid), '\s+', ' ', 'g') END,
    'partitioning', 'PARTITION BY ' || pg_get_partkeydef(oid),
    'parent', (
      SELECT string_agg(
        CASE WHEN relispartition THEN 'PARTITION OF ' ELSE 'INHERITS ' END || inhparent::regclass,
        ', ' ORDER BY inhseqno)
      FROM pg_inherits WHERE inhrelid = r.oid
    ),
    'bound', pg_get_expr(relpartbound, oid),
    'persistence', CASE relpersistence WHEN 'u' THEN 'UNLOGGED' END,
    'options', 'WITH (' || array_to_string(reloptions, ', ') || ')',
    'comment', quote_literal(obj_description(oid, 'pg_class'))
  )
  FROM relations AS r WHERE relkind IN ('r', 'p', 'f', 'v', 'm')

  UNION ALL
  SELECT 'column', r.nspname, r.relname, attname, jsonb_build_object(
    'type', format_type(atttypid, atttypmod),
    'nullability', CASE WHEN attnotnull THEN 'NOT NULL' ELSE 'NULL' END,
    'default', CASE WHEN attgenerated = '' THEN 'DEFAULT ' || CASE
        WHEN pg_get_expr(adbin, adrelid) = format('nextval(%L::regclass)', q.oid::regclass)
        THEN 'nextval of its own sequence' ELSE pg_get_expr(adbin, adrelid)
      END END,
    'generation', CASE WHEN attgenerated <> '' THEN concat(
      'GENERATED ALWAYS AS (', pg_get_expr(adbin, adrelid), ') ',
      CASE attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END,
    'identity', CASE attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                                 WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
    'sequence', 'a sequence ' || sequence,
    'collation', 'COLLATE ' || CASE WHEN attcollation <> typcollation
                                    THEN attcollation::regcollation END,
    'comment', quote_literal(col_description(attrelid, attnum))
  )
  FROM pg_attribute JOIN relations AS r ON r.oid = attrelid AND relkind IN ('r', 'p', 'f')
  JOIN pg_type AS t ON t.oid = atttypid
  LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
  LEFT JOIN sequences AS q ON (refobjid, refobjsubid) = (attrelid, attnum)
  WHERE attnum > 0 AND NOT attisdropped

  UNION ALL
  SELECT 'constraint', nspname, relname, conname, jsonb_build_object(
    'definition', pg_get_constraintdef(c.oid),
    'comment', quote_literal(obj_description(c.oid, 'pg_constraint'))
  )
  FROM pg_constraint AS c JOIN relations AS r ON r.oid = conrelid
  WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND conparentid = 0 AND conislocal

  UNION ALL
  SELECT 'index', t.nspname, t.relname, i.relname, jsonb_build_object(
    'definition', replace(pg_get_indexdef(i.oid), format(' INDEX %I ON ', i.relname), ' INDEX ON '),
    'validity', CASE WHEN NOT indisvalid THEN 'INVALID' END,
    'comment', quote_literal(obj_description(i.oid, 'pg_class'))
  )
  FROM pg_index JOIN relations AS i ON i.oid = indexrelid JOIN relations AS t ON t.oid = indrelid
  WHERE NOT i.relispartition
    AND NOT EXISTS (
      SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x')
    )

  UNION ALL
  SELECT 'trigger', nspname, relname, tgname,
    jsonb_build_object('definition', pg_get_triggerdef(t.oid))
  FROM pg_trigger AS t JOIN relations AS r ON r.oid = tgrelid
  WHERE NOT tgisinternal AND tgparentid = 0

  UNION ALL
  SELECT 'function', nspname, '',
    format('%s(%s)', proname, pg_get_function_identity_arguments(p.oid)), jsonb_build_object(
    'definition', CASE WHEN prokind <> 'a'
                       THEN btrim(regexp_replace(pg_get_functiondef(p.oid), '\s+', ' ', 'g')) END
  )
  FROM pg_proc AS p JOIN schemas AS s ON s.oid = pronamespace
  WHERE NOT EXISTS (
    SELECT FROM pg_depend
    WHERE (classid, objid) = ('pg_proc'::regclass, p.oid) AND deptype IN ('e', 'i')
  )
)
SELECT kind, schema, relation, name, jsonb_strip_nulls(facts)::text
FROM things ORDER BY kind, schema, relation, name
"""
