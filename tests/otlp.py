"""Reads records of `--json=otlp` from stdin with the protobufs that OpenTelemetry publishes (PyPI: opentelemetry-proto).

Each line must be one request of the logs' service, with no field that the protocol does not know, one record, and
attributes of different names. Ends with 1 at the first line that is not.
"""

import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

count = 0
for count, line in enumerate(sys.stdin, 1):
    try:
        request = json_format.Parse(line, ExportLogsServiceRequest())
        (resource,) = request.resource_logs
        (scope,) = resource.scope_logs
        (record,) = scope.log_records
        names = [attribute.key for attribute in record.attributes]
        assert record.time_unix_nano == record.observed_time_unix_nano > 0, "no time"
        assert record.event_name == scope.scope.name and scope.scope.version, "no name"
        assert len(names) == len(set(names)) and all(names), "an attribute twice, or without a name"
        assert all(attribute.value.WhichOneof("value") for attribute in record.attributes), "no value"
        assert any(a.key == "service.name" for a in resource.resource.attributes), "no resource"
    except (AssertionError, ValueError, json_format.ParseError) as wrong:
        sys.exit(f"line {count}: {wrong}: {line}")
if not count:
    sys.exit("no record at all")
print(f"{count} records are what the published protobufs say")
