"""The TestService of the gRPC project on Python's grpcio.

    server.py DESCRIPTORS      a file with an encoded FileDescriptorSet

Prints its port, then for each call with a stream of requests a line `began METHOD`, and a line `left METHOD` where its
client went away before its end. Serves until its stdin ends.
"""

import sys
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "grpc.testing"
INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


def messages(path):
    """The protocol's message classes, by name."""
    files = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as file:
        files.ParseFromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    classes = {}
    for file in files.file:
        pool.Add(file)
        for message in file.message_type:
            found = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            classes[message.name] = message_factory.GetMessageClass(found)
    return classes


def say(line):
    print(line, flush=True)


def watch(method, context):
    """Says that a call has begun and, at its end, whether its client has left."""

    def call_ended():
        # grpcio has no public word for it. A handler cannot tell either: where its client goes, the stream of its
        # requests raises, or just ends.
        if context._state.client == "cancelled":
            say(f"left {method}")

    say(f"began {method}")
    if not context.add_callback(call_ended):
        call_ended()


class TestService:
    def __init__(self, classes):
        self.types = classes

    def zeros(self, size):
        return self.types["Payload"](body=bytes(size))

    def echo_metadata(self, context):
        for key, value in context.invocation_metadata():
            if key == INITIAL:
                context.send_initial_metadata(((key, value),))
            elif key == TRAILING:
                context.set_trailing_metadata(((key, value),))

    def end_as_told(self, request, context):
        if request.HasField("response_status"):
            wanted = request.response_status
            context.abort(CODES[wanted.code], wanted.message)

    def empty_call(self, request, context):
        self.echo_metadata(context)
        return self.types["Empty"]()

    def unary_call(self, request, context):
        self.echo_metadata(context)
        self.end_as_told(request, context)
        return self.types["SimpleResponse"](payload=self.zeros(request.response_size))

    def outputs(self, request):
        for wanted in request.response_parameters:
            time.sleep(wanted.interval_us / 1e6)
            yield self.types["StreamingOutputCallResponse"](payload=self.zeros(wanted.size))

    def streaming_output_call(self, request, context):
        self.echo_metadata(context)
        yield from self.outputs(request)
        self.end_as_told(request, context)

    def streaming_input_call(self, iterator, context):
        watch("StreamingInputCall", context)
        self.echo_metadata(context)
        size = sum(len(request.payload.body) for request in iterator)
        return self.types["StreamingInputCallResponse"](aggregated_payload_size=size)

    def full_duplex_call(self, iterator, context):
        watch("FullDuplexCall", context)
        self.echo_metadata(context)
        for request in iterator:
            yield from self.outputs(request)
            self.end_as_told(request, context)

    def handlers(self):
        def handler(make, behaviour, request, response):
            return make(
                behaviour,
                request_deserializer=self.types[request].FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

        return {
            "EmptyCall": handler(grpc.unary_unary_rpc_method_handler, self.empty_call, "Empty", "Empty"),
            "UnaryCall": handler(
                grpc.unary_unary_rpc_method_handler, self.unary_call, "SimpleRequest", "SimpleResponse"
            ),
            "StreamingOutputCall": handler(
                grpc.unary_stream_rpc_method_handler,
                self.streaming_output_call,
                "StreamingOutputCallRequest",
                "StreamingOutputCallResponse",
            ),
            "StreamingInputCall": handler(
                grpc.stream_unary_rpc_method_handler,
                self.streaming_input_call,
                "StreamingInputCallRequest",
                "StreamingInputCallResponse",
            ),
            "FullDuplexCall": handler(
                grpc.stream_stream_rpc_method_handler,
                self.full_duplex_call,
                "StreamingOutputCallRequest",
                "StreamingOutputCallResponse",
            ),
        }


def main():
    service = TestService(messages(sys.argv[1]))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(f"{PACKAGE}.TestService", service.handlers())]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port)
    sys.stdin.read()
    server.stop(None)


main()
