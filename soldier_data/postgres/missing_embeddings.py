"""Finding the texts that lack an embedding, and giving them one: what the stores' three methods for it share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, Uuid, and_, func, or_, select, tuple_, update

from soldier_data.base.embedded_texts import EmbeddedTextStore
from soldier_data.base.embeddings import TextToEmbed, check_embeddings
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_text
from soldier_data.errors import ValidationError
from soldier_data.postgres.database import Executor
from soldier_data.postgres.queries import LIMIT, is_living
from soldier_data.postgres.statements import Statement, column_param, has_key, param
from soldier_data.postgres.transaction import Transaction


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """A column of text and the columns that its embedding is kept in.

    Attributes:
        kind: What `TextToEmbed.kind` says.
        table: The table. Rows that count their revisions keep counting.
        text: Rows whose text is missing or empty need no embedding.
        embedding: The embedding.
        model: Which model made it.
        in_tenant: The condition of a row that reads return, in the tenant of the parameter tenant_id.
        anywhere: The same, in whichever tenant.
    """

    kind: str
    table: Table
    text: Column[Any]
    embedding: Column[Any]
    model: Column[Any]
    in_tenant: ColumnElement[bool]
    anywhere: ColumnElement[bool]

    @cache  # noqa: B019 - There are three of these, made with their modules.
    def counting(self, *, of_tenant: bool) -> Statement:
        """How many rows need an embedding."""
        statement = select(func.count().label("how_many")).where(self._wanted(of_tenant=of_tenant))
        return Statement(f"counting the {self.table.name} to embed", statement)

    @cache  # noqa: B019 - As above.
    def listing(self, *, of_tenant: bool, after: bool) -> Statement:
        """One page of the rows that need an embedding, in the order of the primary key."""
        table = self.table
        revision = [table.c.revision] if "revision" in table.c else []
        statement = select(table.c.tenant_id, table.c.id, self.text.label("text"), *revision)
        statement = statement.where(self._wanted(of_tenant=of_tenant))
        if after:
            position = tuple_(param("after_tenant_id", Uuid()), param("after_id", Uuid()))
            statement = statement.where(tuple_(table.c.tenant_id, table.c.id) > position)
        page = statement.order_by(table.c.tenant_id, table.c.id).limit(LIMIT)
        return Statement(f"listing the {table.name} to embed", page)

    @cache  # noqa: B019 - As above.
    def writing(self) -> Statement:
        """Set the embedding of one row, unless it is deleted or was saved since it was listed."""
        table = self.table
        changed: dict[str, Any] = {
            self.embedding.name: param("embedding", self.embedding.type),
            self.model.name: param("embedding_model", self.model.type),
        }
        unchanged = and_(has_key(table), is_living(table))
        if "revision" in table.c:
            expected = column_param(table.c.revision)
            write_id = column_param(table.c.write_id)
            changed |= {
                "revision": expected + 1,
                "updated_at": column_param(table.c.updated_at),
                "write_id": write_id,
            }
            # The second: what an unanswered attempt of this very call has written.
            own_write = and_(table.c.revision == expected + 1, table.c.write_id == write_id)
            unchanged = and_(unchanged, or_(table.c.revision == expected, own_write))
        statement = update(table).values(changed).where(unchanged).returning(table.c.id)
        return Statement(f"embedding the {table.name}", statement)

    def _wanted(self, *, of_tenant: bool) -> ColumnElement[bool]:
        other_model = self.model.is_distinct_from(param("embedding_model", self.model.type))
        lacking = or_(self.embedding.is_(None), other_model)
        return and_(self.in_tenant if of_tenant else self.anywhere, self.text != "", lacking)


class PostgresEmbeddedTexts(EmbeddedTextStore):
    """Implements `EmbeddedTextStore` for a PostgreSQL store.

    Attributes:
        _embedded_texts: The columns of each kind of text, in the order of kinds.
    """

    _db: Executor
    _embedded_texts: ClassVar[Sequence[EmbeddedText]]

    async def count_to_embed(self, embedding_model: str, *, tenant_id: UUID | None = None) -> int:
        """See `EmbeddedTextStore`."""
        self._check(embedding_model, tenant_id)
        values = {"tenant_id": tenant_id, "embedding_model": embedding_model}
        total = 0
        for texts in self._embedded_texts:
            row = await self._db.fetch_one(texts.counting(of_tenant=tenant_id is not None), values)
            assert row is not None
            total += row["how_many"]
        return total

    async def list_to_embed(
        self,
        embedding_model: str,
        *,
        tenant_id: UUID | None = None,
        after: TextToEmbed | None = None,
        limit: int = 100,
    ) -> list[TextToEmbed]:
        """See `EmbeddedTextStore`."""
        self._check(embedding_model, tenant_id)
        check_page(limit)
        found: list[TextToEmbed] = []
        for texts in self._embedded_texts:
            if after is not None and texts.kind < after.kind:
                continue
            values: dict[str, Any] = {
                "tenant_id": tenant_id,
                "embedding_model": embedding_model,
                "limit": limit - len(found),
            }
            begun = after is not None and texts.kind == after.kind
            if after is not None and begun:
                values |= {"after_tenant_id": after.tenant_id, "after_id": after.id}
            statement = texts.listing(of_tenant=tenant_id is not None, after=begun)
            found += [TextToEmbed(texts.kind, **row) for row in await self._db.fetch_all(statement, values)]
            if len(found) >= limit:
                break
        return found

    async def set_embeddings(
        self, embeddings: Sequence[tuple[TextToEmbed, Sequence[float]]], embedding_model: str
    ) -> int:
        """See `EmbeddedTextStore`."""
        check_text(embedding_model, "embedding_model")
        kinds = [texts.kind for texts in self._embedded_texts]
        check_embeddings(embeddings, self._db.settings.embedding_dimensions, kinds)
        if not embeddings:
            return 0
        written = {"embedding_model": embedding_model, "updated_at": utcnow(), "write_id": new_id()}
        # In the order of the key, so that calls with rows in common never wait for each other.
        ordered = sorted(embeddings, key=lambda item: item[0].position())

        async def work(transaction: Transaction) -> int:
            count = 0
            for texts in self._embedded_texts:
                rows: list[Mapping[str, Any]] = [
                    {
                        **written,
                        "tenant_id": text.tenant_id,
                        "id": text.id,
                        "revision": text.revision,
                        "embedding": embedding,
                    }
                    for text, embedding in ordered
                    if text.kind == texts.kind
                ]
                if rows:
                    count += len(await transaction.fetch_many(texts.writing(), rows))
            return count

        return await self._db.atomically(work, "storing embeddings")

    def _check(self, embedding_model: str, tenant_id: UUID | None) -> None:
        check_text(embedding_model, "embedding_model")
        if tenant_id is None and self._db.settings.row_level_security:
            raise ValidationError(
                "tenant_id is missing, but row-level security shows the rows of one tenant at a time: pass a tenant_id",
                field="tenant_id",
            )
