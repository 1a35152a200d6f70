"""Requests and answers of a `QdrantClient` as Qdrant Edge takes and gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast
from uuid import UUID

import qdrant_edge as edge
from qdrant_client.http import models

_TRUTHS: Final = "_truths"
"""Where a payload's booleans are kept as text: Edge's Python binding takes True for 1."""
_SIMPLE_KEY: Final = re.compile(r"[A-Za-z0-9_\-]+")
_DISTANCES: Final = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
    models.Distance.MANHATTAN: edge.Distance.Manhattan,
}


def dense_params(params: models.VectorParams) -> edge.EdgeVectorParams:
    """How a dense vector is kept."""
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    return edge.EdgeVectorParams(
        size=params.size,
        distance=_DISTANCES[params.distance],
        multivector_config=multi if params.multivector_config else None,
    )


def sparse_params(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    """How a sparse vector is kept."""
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier else None)


def index_params(schema: models.PayloadSchemaParams) -> Any:
    """An index of a payload's field.

    Raises:
        ValueError: If Edge has none such.
    """
    match schema:
        case models.KeywordIndexParams():
            return edge.KeywordIndexParams(is_tenant=schema.is_tenant)
        case models.IntegerIndexParams():
            return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
        case models.DatetimeIndexParams():
            return edge.DatetimeIndexParams()
        case _:
            raise ValueError(f"no such index here: {schema!r}")


def query_request(asked: models.QueryRequest) -> edge.QueryRequest:
    """A query, by vector or by order."""
    idf = cast("Any", asked.params.idf if asked.params else None)
    params = None if idf is None else edge.SearchParams(idf=edge.IdfParams(filter_of(idf.corpus)))
    match asked.query:
        case models.OrderByQuery(order_by=models.OrderBy(key=key)):
            query: Any = edge.OrderBy(key, edge.Direction.Desc)
        case models.SparseVector(indices=indices, values=values):
            query = edge.Query.Nearest(edge.SparseVector(indices, values), using=asked.using)
        case vectors:
            query = edge.Query.Nearest(cast("Any", vectors), using=asked.using)
    return edge.QueryRequest(
        limit=cast("int", asked.limit),
        query=query,
        filter=filter_of(asked.filter),
        params=params,
        with_payload=cast("Any", asked.with_payload),
        with_vector=False,
    )


def filter_of(asked: models.Filter | None) -> Any:
    """A filter; None for none."""
    if asked is None:
        return None
    parts: dict[str, Any] = {}
    for name in ("must", "should", "must_not"):
        conditions: Any = getattr(asked, name)
        if conditions is not None:
            is_one = isinstance(conditions, models.FieldCondition | models.Filter)
            parts[name] = [_condition(each) for each in ([conditions] if is_one else conditions)]
    return edge.Filter(**parts)


def _condition(asked: Any) -> Any:
    match asked:
        case models.Filter():
            made: Any = filter_of(asked)
        case models.HasIdCondition(has_id=ids):
            made = edge.HasIdCondition(set(map(edge_id, cast("list[Any]", ids))))
        case models.IsEmptyCondition(is_empty=field):
            made = edge.IsEmptyCondition(field.key)
        case models.FieldCondition(key=key, match=models.MatchValue(value=bool() as value)):
            made = edge.FieldCondition(_TRUTHS, match=edge.MatchValue(f"{key}={value}"))
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            made = edge.FieldCondition(key, match=edge.MatchValue(value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            made = edge.FieldCondition(key, match=edge.MatchAny(cast("Any", values)))
        case models.FieldCondition(key=key, range=models.Range() as bounds):
            made = edge.FieldCondition(key, range=edge.RangeFloat(**_bounds(bounds)))
        case models.FieldCondition(key=key, range=models.DatetimeRange() as bounds):
            dated = {name: bound.isoformat() for name, bound in _bounds(bounds).items()}
            made = edge.FieldCondition(key, range=edge.RangeDateTime(**dated))
        case _:
            raise ValueError(f"no such condition here: {asked!r}")
    return made


def _bounds(given: models.Range | models.DatetimeRange) -> dict[str, Any]:
    bounds = ((name, getattr(given, name)) for name in ("gt", "gte", "lt", "lte"))
    return {name: bound for name, bound in bounds if bound is not None}


def payload_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A payload as Edge keeps it."""
    payload = dict(given or {})
    truths = list(_truths(payload, ""))
    return {**payload, _TRUTHS: truths} if truths else payload


def _truths(value: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, inner in value.items():
        here = path + (key if _SIMPLE_KEY.fullmatch(key) else f'"{key}"')
        if isinstance(inner, bool):
            yield f"{here}={inner}"
        elif isinstance(inner, Mapping):
            yield from _truths(cast("Mapping[str, Any]", inner), f"{here}.")


def record_of(point: edge.Record) -> models.Record:
    """A point that was kept, without its vectors."""
    payload = {name: value for name, value in (point.payload or {}).items() if name != _TRUTHS}
    return models.Record(id=client_id(point.id), payload=payload)


def vectors_of(given: Any) -> Any:
    """Vectors by name."""
    return {
        name: edge.SparseVector(vector.indices, vector.values)
        if isinstance(vector, models.SparseVector)
        else vector
        for name, vector in given.items()
    }


def edge_id(point_id: Any) -> Any:
    """A point's id as Edge takes it."""
    return UUID(point_id) if isinstance(point_id, str) else point_id


def client_id(point_id: Any) -> Any:
    """A point's id as a client knows it."""
    return str(point_id) if isinstance(point_id, UUID) else point_id
