"""The column type of embeddings, and its distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, cast, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from soldier_data.postgres.ddl import ddl_options, extensions_schema
from soldier_data.postgres.statements import quoted


class EmbeddingVector(UserDefinedType[list[float]]):
    """A pgvector column with `SOLDIER_EMBEDDING_DIMENSIONS` dimensions.

    The type `VECTOR` of pgvector-python is not used because its operators are found by the search_path and its length
    is fixed when a class is defined, while here the schema of the extension and the number of dimensions are settings.

    The number of dimensions is read when DDL is rendered, so that models and migrations always agree. Values are sent
    in pgvector's binary format, by the codec that `engine.py` registers on each connection.

    Args:
        length: A different number of dimensions, for columns that migrations reflect.
    """

    cache_ok = True
    _name = "VECTOR"

    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def get_col_spec(self, *, identifier_preparer: IdentifierPreparer | None = None, **_kw: Any) -> str:
        """The type in DDL and casts, such as public.VECTOR(1536)."""
        dialect = None if identifier_preparer is None else identifier_preparer.dialect
        return f"{quoted(extensions_schema(dialect))}.{self._name}({self.dimensions})"

    @property
    def dimensions(self) -> int:
        """Number of dimensions."""
        return self.length or ddl_options().embedding_dimensions

    class Comparator(TypeEngine.Comparator[list[float]]):
        """Adds pgvector's distances to columns. `other` is a list, a NumPy array, or an SQL expression."""

        def cosine_distance(self, other: Any) -> ColumnElement[float]:
            """Cosine distance: 0 (same direction) to 2 (opposite direction)."""
            return _CosineDistance(self.expr, other)

        def l2_distance(self, other: Any) -> ColumnElement[float]:
            """Euclidean distance."""
            return _L2Distance(self.expr, other)

        def max_inner_product(self, other: Any) -> ColumnElement[float]:
            """The inner product, negated: the smaller, the more similar."""
            return _NegativeInnerProduct(self.expr, other)

        def indexed_cosine_distance(self, vector: Sequence[float]) -> ColumnElement[float]:
            """Cosine distance at half precision, by which the vector index is ordered.

            `ORDER BY` it with a `LIMIT`, on rows that are not soft-deleted, to let PostgreSQL use the index. It
            differs from `cosine_distance` by less than 0.001; select that one as the score.

            Args:
                vector: A list or a NumPy array, as long as the vectors of the column.
            """
            length = len(vector)
            # l2_normalize is overloaded, so its argument must have a type.
            typed = cast(literal(vector, self.expr.type), EmbeddingVector(length))
            return _CosineDistance(half_precision(self.expr, length), half_precision(typed, length))

    comparator_factory = Comparator


class _Distance(FunctionElement[float]):
    """A distance between two vectors. Its operator is qualified with the schema of pgvector."""

    type = Float()
    inherit_cache = True
    operator: str

    def __init__(self, column: ColumnElement[Any], other: Any) -> None:
        vector = other if isinstance(other, SQLColumnExpression) else literal(other, column.type)
        super().__init__(column, vector)


class _CosineDistance(_Distance):
    operator = "<=>"
    inherit_cache = True


class _L2Distance(_Distance):
    operator = "<->"
    inherit_cache = True


class _NegativeInnerProduct(_Distance):
    operator = "<#>"
    inherit_cache = True


@compiles(_Distance)
def _render_distance(element: _Distance, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({left} OPERATOR({quoted(extensions_schema(compiler.dialect))}.{element.operator}) {right})"


class _HalfVector(EmbeddingVector):
    cache_ok = True
    _name = "HALFVEC"


class _Normalised(FunctionElement[list[float]]):
    type = EmbeddingVector()
    inherit_cache = True


@compiles(_Normalised)
def _render_normalised(element: _Normalised, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLAlchemy's functions do not quote a schema whose name is a reserved word.
    schema = quoted(extensions_schema(compiler.dialect))
    return f"{schema}.l2_normalize({compiler.process(element.clauses, **kw)})"


def half_precision(vector: ColumnElement[Any], dimensions: int | None = None) -> ColumnElement[Any]:
    """The indexed expression: `vector` normalised, at half precision. It halves the size of the index.

    Vectors are normalised because half precision has a range of 6e-8 to 65,504.

    Args:
        vector: An embedding.
        dimensions: Its number of dimensions; by default that of the current DDL options.
    """
    return cast(_Normalised(vector), _HalfVector(dimensions))
