"""Relationships within JSON: what a select leads to is what the ORM would have loaded."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import Column, ForeignKey, Table, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.pool import NullPool

from stillroom.errors import ConfigurationError
from stillroom.json import JSONRow, JSONSelect, array_of
from stillroom.json.pages import JSONPages
from stillroom.model import Model


class Base(Model, DeclarativeBase):
    """The base of the models."""


MEMBER: Column[int] = Column("member_id", ForeignKey("members.id"), primary_key=True)
TAG: Column[int] = Column("tag_id", ForeignKey("tags.id"), primary_key=True)
TAGGED = Table("tagged", Base.metadata, MEMBER, TAG)


class Team(Base):
    """A team, which may be a part of another one."""

    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("team_name")
    whole_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))

    members: Mapped[list["Member"]] = relationship(
        back_populates="team", order_by="Member.rank.desc(), Member.id"
    )
    parts: Mapped[list["Team"]] = relationship(back_populates="whole")
    whole: Mapped["Team | None"] = relationship(back_populates="parts", remote_side="Team.id")


class Member(Base):
    """Who is in one team, and has tags."""

    __tablename__ = "members"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    rank: Mapped[int] = mapped_column(default=0)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))

    team: Mapped[Team] = relationship(back_populates="members")
    first_team: Mapped[Team | None] = relationship(
        primaryjoin="and_(Member.team_id == Team.id, Team.id == 1)", viewonly=True
    )
    tags: Mapped[list["Tag"]] = relationship(secondary=TAGGED)


class Tag(Base):
    """A word that many have."""

    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]


class Schema(BaseModel):
    """The base of the models of answers."""

    model_config = ConfigDict(from_attributes=True)


class TagSchema(Schema):
    """A tag."""

    word: str


class TeamSchema(Schema):
    """A team by itself."""

    name: str


class MemberSchema(Schema):
    """A member, with what is around."""

    name: str
    tags: list[TagSchema]
    team: TeamSchema


class TeammateSchema(Schema):
    """A member within a team."""

    name: str
    tags: list[TagSchema] = Field(serialization_alias="labels")


class WholeTeamSchema(Schema):
    """A team with all that belongs to it, some of it twice."""

    name: str
    members: list[TeammateSchema]
    parts: list[TeamSchema]
    whole: TeamSchema | None


class TreeSchema(Schema):
    """A team and its parts, however deep."""

    name: str
    parts: list["TreeSchema"]


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    """Give a session with some teams."""
    url = database_url.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        tags = [Tag(id=number, word=word) for number, word in enumerate(["ü", 'a "b"', "c"])]
        teams = [
            Team(id=1, name="all"),
            Team(id=2, name="red", whole_id=1),
            Team(id=3, name="blue", whole_id=1),
        ]
        session.add_all([*tags, *teams])
        await session.flush()
        session.add_all(
            [
                Member(id=1, name="Ada", rank=1, team_id=2, tags=[tags[2], tags[0]]),
                Member(id=2, name="Ben", rank=5, team_id=2),
                Member(id=3, name="Eve", rank=1, team_id=2, tags=[tags[1]]),
                Member(id=4, name="Joe", team_id=3, tags=tags),
            ]
        )
        await session.commit()
        yield session
    await engine.dispose()


async def loaded(session: AsyncSession, model: type[BaseModel], statement: Any) -> Any:
    """Return what Pydantic writes of the objects that the ORM loads."""
    found = (await session.scalars(statement)).all()
    models = [model.model_validate(it) for it in found]
    written = TypeAdapter(list[Any]).dump_json(models, by_alias=True)
    return json.loads(written)


async def test_a_field_that_is_a_relationship_is_followed(session: AsyncSession) -> None:
    """Of many and of one, through a table between, to the table itself, two levels deep."""
    teams = select(Team).order_by(Team.id)
    found = json.loads(await JSONSelect(teams, WholeTeamSchema).all(session))

    loaders = (
        selectinload(Team.members).selectinload(Member.tags),
        selectinload(Team.parts),
        selectinload(Team.whole),
    )
    assert found == await loaded(session, WholeTeamSchema, teams.options(*loaders))
    assert [it["name"] for it in found[1]["members"]] == ["Ben", "Ada", "Eve"]
    assert found[0]["whole"] is None


async def test_an_entity_by_another_name_leads_to_its_own(session: AsyncSession) -> None:
    """A select may have an alias, join what it leads to, and filter by it."""
    other = aliased(Member)
    members = (
        select(other)
        .join(Team, other.team_id == Team.id)
        .join(Member, Member.team_id == Team.id)
        .where(Member.name == "Ada", other.rank == bindparam("rank"))
        .order_by(other.id)
    )
    found = json.loads(await JSONSelect(members, MemberSchema).all(session, rank=1))

    assert found == [
        {"name": "Ada", "tags": [{"word": "ü"}, {"word": "c"}], "team": {"name": "red"}},
        {"name": "Eve", "tags": [{"word": 'a "b"'}], "team": {"name": "red"}},
    ]


async def test_rows_and_pages_follow_relationships_too(session: AsyncSession) -> None:
    """The same model describes a list, a page of it and one row."""
    every = json.loads(
        await JSONSelect(select(Member).order_by(Member.id), MemberSchema).all(session)
    )
    pages = JSONPages(select(Member), MemberSchema, order_by=[Member.id])
    first = await pages.read(session, 3)
    second = await pages.read(session, 3, first.next)
    assert [*json.loads(first.body), *json.loads(second.body)] == every
    assert json.loads(await JSONRow(Member, MemberSchema).get(session, 4) or b"") == every[3]


async def test_a_column_of_that_name_goes_first(session: AsyncSession) -> None:
    """Who makes the column says which rows, and in which order."""
    some = select(Member).where(Member.team_id == Team.id, Member.rank > 1)
    teams = select(Team, array_of(some, TeammateSchema, of=Team).label("members"))
    found = json.loads(await JSONSelect(teams.where(Team.id == 2), WholeTeamSchema).all(session))
    assert [it["name"] for it in found[0]["members"]] == ["Ben"]


class OneMember(Schema):
    """Says one where there are many."""

    members: TeammateSchema | None


class AlwaysWhole(Schema):
    """Says that there is always one."""

    whole: TeamSchema


class FirstTeam(Schema):
    """Says that there is always one, where a condition may leave none."""

    first_team: TeamSchema


@pytest.mark.parametrize(
    ("entity", "model", "why"),
    [
        (Member, FirstTeam, "FirstTeam.first_team: the relationship may lead nowhere"),
        (Team, TreeSchema, "TreeSchema.parts: it is in itself without an end"),
        (Team, OneMember, "OneMember.members: one of the model and the relationship says one"),
        (Team, AlwaysWhole, "AlwaysWhole.whole: the relationship may lead nowhere"),
    ],
)
def test_what_a_relationship_cannot_be_is_refused(
    entity: type[Base], model: type[BaseModel], why: str
) -> None:
    """When the select is made, by the name of the field."""
    with pytest.raises(ConfigurationError, match=why):
        JSONSelect(select(entity), model)
