"""The gRPC side of the loopback Qdrant: its requests become REST ones and are answered there."""

# ruff: noqa: N802 - methods are named by the protocol
from __future__ import annotations

from concurrent import futures

import grpc
from qdrant_client import grpc as rpc
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.loopback_qdrant import LoopbackQdrant, RefusalError

STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


class LoopbackGrpc:
    """Beside `server`, on a port of its own; use as a context manager."""

    def __init__(self, server: LoopbackQdrant):
        self.server = server
        self.grpc = grpc.server(futures.ThreadPoolExecutor(16))
        rpc.add_QdrantServicer_to_server(Service(self), self.grpc)
        rpc.add_CollectionsServicer_to_server(Collections(self), self.grpc)
        rpc.add_PointsServicer_to_server(Points(self), self.grpc)
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")

    def __enter__(self):
        self.grpc.start()
        return self

    def __exit__(self, *_):
        self.grpc.stop(None).wait()

    def answered(self, context, method, path, body=None):
        """The REST result of `body`, a model; the context is aborted where that refuses."""
        metadata = dict(context.invocation_metadata())
        key = self.server.api_key
        if key is not None and metadata.get("api-key") != key:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
        self.server.requests.append(f"grpc {method} {path}")
        fault = self.server.fault_for(f"grpc {method} {path}")
        if fault is not None:
            context.set_trailing_metadata(
                [(name.lower(), value) for name, value in fault.headers.items()]
            )
            context.abort(STATUS[fault.status], "told to fail")
        text = "" if body is None else body.model_dump_json(exclude_none=True)
        try:
            with self.server.lock:
                return self.server.answered(method, path.split("/"), text)
        except RefusalError as refusal:
            context.abort(STATUS[refusal.status], str(refusal))
        except Exception as error:  # noqa: BLE001 - the engine's refusals are bare exceptions
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")


class Service(rpc.QdrantServicer):
    def __init__(self, loopback):
        self.loopback = loopback

    def HealthCheck(self, request, context):
        return rpc.HealthCheckReply(title="qdrant", version=self.loopback.server.version)


class Collections(rpc.CollectionsServicer):
    def __init__(self, loopback):
        self.loopback = loopback

    def List(self, request, context):
        found = self.loopback.answered(context, "GET", "collections")["collections"]
        return rpc.ListCollectionsResponse(
            collections=[rpc.CollectionDescription(name=each["name"]) for each in found]
        )

    def Get(self, request, context):
        path = f"collections/{request.collection_name}"
        info = models.CollectionInfo.model_validate(self.loopback.answered(context, "GET", path))
        for each in info.payload_schema.values():
            each.points = each.points or 0
        return rpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def Create(self, request, context):
        asked = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        path = f"collections/{request.collection_name}"
        return rpc.CollectionOperationResponse(
            result=self.loopback.answered(context, "PUT", path, asked)
        )

    def Delete(self, request, context):
        path = f"collections/{request.collection_name}"
        return rpc.CollectionOperationResponse(
            result=self.loopback.answered(context, "DELETE", path)
        )


class Points(rpc.PointsServicer):
    def __init__(self, loopback):
        self.loopback = loopback

    def answered(self, context, request, method, rest, body):
        path = f"collections/{request.collection_name}/{rest}"
        return self.loopback.answered(context, method, path, body)

    def updated(self, context, request, method, rest, body):
        done = models.UpdateResult.model_validate(
            self.answered(context, request, method, rest, body)
        )
        return rpc.PointsOperationResponse(result=RestToGrpc.convert_update_result(done))

    def CreateFieldIndex(self, request, context):
        asked = models.CreateFieldIndex(
            field_name=request.field_name,
            field_schema=GrpcToRest.convert_payload_schema_params(request.field_index_params),
        )
        return self.updated(context, request, "PUT", "index", asked)

    def Upsert(self, request, context):
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        return self.updated(context, request, "PUT", "points", models.PointsList(points=points))

    def Delete(self, request, context):
        asked = GrpcToRest.convert_points_selector(request.points)
        return self.updated(context, request, "POST", "points/delete", asked)

    def Count(self, request, context):
        needed = GrpcToRest.convert_filter(request.filter)
        asked = models.CountRequest(filter=needed, exact=request.exact)
        count = self.answered(context, request, "POST", "points/count", asked)["count"]
        return rpc.CountResponse(result=rpc.CountResult(count=count))

    def Scroll(self, request, context):
        asked = models.ScrollRequest(
            filter=GrpcToRest.convert_filter(request.filter),
            offset=GrpcToRest.convert_point_id(request.offset),
            limit=request.limit,
            with_payload=True,
            with_vector=True,
        )
        found = self.answered(context, request, "POST", "points/scroll", asked)["points"]
        return rpc.ScrollResponse(
            result=[
                RestToGrpc.convert_retrieved_point(models.Record.model_validate(each))
                for each in found
            ]
        )

    def QueryBatch(self, request, context):
        searches = [GrpcToRest.convert_query_points(each) for each in request.query_points]
        asked = models.QueryRequestBatch(searches=searches)
        found = self.answered(context, request, "POST", "points/query/batch", asked)
        return rpc.QueryBatchResponse(
            result=[
                rpc.BatchResult(
                    result=[
                        RestToGrpc.convert_scored_point(models.ScoredPoint.model_validate(hit))
                        for hit in each["points"]
                    ]
                )
                for each in found
            ]
        )
