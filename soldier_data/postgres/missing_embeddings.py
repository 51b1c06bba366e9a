"""The statements that list texts without an embedding and store embeddings, and the store methods that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, Uuid, and_, func, or_, select, tuple_, update

from soldier_data.base.embedded_texts import EmbeddedTextStore, TextToEmbed, check_embeddings
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_text
from soldier_data.errors import ValidationError
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import LIMIT, equals, has_key, is_living
from soldier_data.postgres.statements import Statement, column_param, param
from soldier_data.postgres.transaction import Transaction


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """A column of text, and the columns of its embedding.

    Attributes:
        kind: The `kind` of its `TextToEmbed`.
        table: The table. A `revision` column is increased when an embedding is stored.
        text: The text. A row whose text is NULL or empty needs no embedding.
        embedding: The embedding.
        model: The model that made the embedding.
        in_tenant: The condition for a row to be returned by reads, in the tenant of the parameter `tenant_id`.
        anywhere: The same condition for all tenants.
    """

    kind: str
    table: Table
    text: Column[Any]
    embedding: Column[Any]
    model: Column[Any]
    in_tenant: ColumnElement[bool]
    anywhere: ColumnElement[bool]

    @cache  # noqa: B019 - there are only three of these, created at import.
    def counting(self, *, of_tenant: bool) -> Statement:
        """Count the rows that need an embedding."""
        statement = select(func.count().label("how_many")).where(self._wanted(of_tenant=of_tenant))
        return Statement(f"counting the {self.table.name} to embed", statement)

    @cache  # noqa: B019 - as above.
    def listing(self, *, of_tenant: bool, after: bool) -> Statement:
        """Select one page of the rows that need an embedding, by primary key."""
        table = self.table
        revision = [table.c.revision] if "revision" in table.c else []
        statement = select(table.c.tenant_id, table.c.id, self.text.label("text"), *revision)
        statement = statement.where(self._wanted(of_tenant=of_tenant))
        if after:
            position = tuple_(param("after_tenant_id", Uuid()), param("after_id", Uuid()))
            statement = statement.where(tuple_(table.c.tenant_id, table.c.id) > position)
        page = statement.order_by(table.c.tenant_id, table.c.id).limit(LIMIT)
        return Statement(f"listing the {table.name} to embed", page)

    @cache  # noqa: B019 - as above.
    def writing(self) -> Statement:
        """Set the embedding of one row, unless it was deleted or saved after it was listed."""
        table = self.table
        changed: dict[str, Any] = {
            self.embedding.name: param("embedding", self.embedding.type),
            self.model.name: param("embedding_model", self.model.type),
        }
        unchanged = and_(has_key(table), is_living(table))
        if "revision" in table.c:
            expected = column_param(table.c.revision)
            changed |= {
                "revision": expected + 1,
                "updated_at": column_param(table.c.updated_at),
                "write_id": column_param(table.c.write_id),
            }
            # The row was written by an earlier attempt of the same call, whose reply was lost.
            own_write = and_(table.c.revision == expected + 1, equals(table.c.write_id))
            unchanged = and_(unchanged, or_(table.c.revision == expected, own_write))
        statement = update(table).values(changed).where(unchanged).returning(table.c.id)
        return Statement(f"embedding the {table.name}", statement)

    def _wanted(self, *, of_tenant: bool) -> ColumnElement[bool]:
        other_model = self.model.is_distinct_from(param("embedding_model", self.model.type))
        lacking = or_(self.embedding.is_(None), other_model)
        return and_(self.in_tenant if of_tenant else self.anywhere, self.text != "", lacking)


class PostgresEmbeddedTexts(EmbeddedTextStore):
    """Implementation of `EmbeddedTextStore` on PostgreSQL.

    Attributes:
        _embedded_texts: The columns of each kind of text, sorted by kind.
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
        # Concurrent calls lock rows in the same order, which prevents deadlocks.
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
