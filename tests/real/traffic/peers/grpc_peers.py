"""A server and a client of grpcio, with sidekey between them. No schema: messages are bytes.

    grpc_peers.py CERT KEY ROOT

It prints its URLs, reads one line of JSON with sidekey's addresses in front of each, makes its checks, and ends.
"""

import concurrent.futures
import json
import os
import pathlib
import sys
import threading
import time

import grpc

UNARY_CALLS = 1000
MIB = 1 << 20
LIMITS = [("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB)]
PATIENCE = 30


def check(name, condition, found=""):
    print(f"ok      {name}" if condition else f"FAILED  {name}: {found!r}", flush=True)


class Echo:
    """The service, and what it saw of calls that were given up."""

    def __init__(self):
        self.given_up = {}

    def event(self, mark):
        return self.given_up.setdefault(mark, threading.Event())

    def unary(self, request, context):
        seen = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-initial", "first"), ("x-bin", bytes(range(256)))])
        mark, binary = seen.get("x-mark", "none"), seen.get("x-bin", b"")
        context.set_trailing_metadata([("x-trailing", mark), ("x-seen-bin", binary)])
        return request

    def metadata(self, request, context):
        plain = [[name, value] for name, value in context.invocation_metadata() if isinstance(value, str)]
        return json.dumps(plain).encode()

    def fail(self, request, context):
        context.set_trailing_metadata([("x-why", "because")])
        context.abort(list(grpc.StatusCode)[int(request)], f"as asked: {request.decode()} – grüß dich")

    def collect(self, requests, context):
        return b"".join(requests)

    def count(self, request, context):
        for number in range(int(request)):
            yield str(number).encode()

    def both(self, requests, context):
        for request in requests:
            yield request

    def half(self, request, context):
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "half of it")

    def endless(self, request, context):
        self._give_up_notice(request, context)
        yield b"begun"
        while context.is_active():
            time.sleep(0.01)

    def never(self, request, context):
        self._give_up_notice(request, context)
        while context.is_active():
            time.sleep(0.01)
        return b""

    def _give_up_notice(self, mark, context):
        context.add_callback(self.event(mark.decode()).set)

    def handlers(self):
        kinds = {
            "unary": grpc.unary_unary_rpc_method_handler, "metadata": grpc.unary_unary_rpc_method_handler,
            "fail": grpc.unary_unary_rpc_method_handler, "never": grpc.unary_unary_rpc_method_handler,
            "collect": grpc.stream_unary_rpc_method_handler,
            "count": grpc.unary_stream_rpc_method_handler, "endless": grpc.unary_stream_rpc_method_handler,
            "half": grpc.unary_stream_rpc_method_handler,
            "both": grpc.stream_stream_rpc_method_handler,
        }
        methods = {name: kind(getattr(self, name)) for name, kind in kinds.items()}
        return grpc.method_handlers_generic_handler("test.Echo", methods)


def failure(call):
    """What a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None


def try_all(label, channel, echo, token):
    def method(kind, name):
        return getattr(channel, kind)(f"/test.Echo/{name}")

    unary = method("unary_unary", "unary")
    answer, call = unary.with_call(b"hello", metadata=[("x-mark", "42"), ("x-bin", bytes(range(255, -1, -1)))],
                                   timeout=PATIENCE)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    check(f"{label}: a unary call", answer == b"hello" and call.code() == grpc.StatusCode.OK, answer)
    check(f"{label}: metadata, both ways, binary too",
          (initial.get("x-initial"), initial.get("x-bin")) == ("first", bytes(range(256)))
          and (trailing.get("x-trailing"), trailing.get("x-seen-bin")) == ("42", bytes(range(255, -1, -1))),
          (initial, trailing))
    seen = json.loads(method("unary_unary", "metadata")(b"", metadata=[("authorization", "Bearer mine")],
                                                        timeout=PATIENCE))
    got = [value for name, value in seen if name == "authorization"]
    check(f"{label}: the credential is metadata, and none but it", got == [f"Bearer {token}"], seen)
    check(f"{label}: an empty message", unary(b"", timeout=PATIENCE) == b"")
    large = os.urandom(8 * MIB)
    check(f"{label}: a message of 8 MiB, and back", unary(large, timeout=PATIENCE) == large)

    pieces = [os.urandom(size) for size in (0, 1, 1000, 100_000, MIB)]
    got = method("stream_unary", "collect")(iter(pieces), timeout=PATIENCE)
    check(f"{label}: client streaming", got == b"".join(pieces), len(got))
    got = list(method("unary_stream", "count")(b"1000", timeout=PATIENCE))
    check(f"{label}: server streaming", got == [str(number).encode() for number in range(1000)], len(got))
    check(f"{label}: server streaming of nothing", list(method("unary_stream", "count")(b"0", timeout=PATIENCE)) == [])
    lock_step(label, method("stream_stream", "both"))

    for code in list(grpc.StatusCode)[1:]:
        error = failure(lambda: method("unary_unary", "fail")(str(list(grpc.StatusCode).index(code)).encode(),
                                                              timeout=PATIENCE))
        right = error is not None and (error.code() is code and "grüß dich" in error.details()
                                       and dict(error.trailing_metadata()).get("x-why") == "because")
        if not right:
            check(f"{label}: status {code.name}, with its details and metadata", False, str(error))
            break
    else:
        check(f"{label}: all 16 statuses of failures, with details and trailing metadata", True)
    half = method("unary_stream", "half")(b"", timeout=PATIENCE)
    first, error = next(half), failure(lambda: next(half))
    check(f"{label}: a stream that fails half-way",
          first == b"one" and error.code() is grpc.StatusCode.DATA_LOSS, error)
    error = failure(lambda: method("unary_unary", "none")(b"", timeout=PATIENCE))
    check(f"{label}: a method that is not there", error.code() is grpc.StatusCode.UNIMPLEMENTED, error)

    error = failure(lambda: method("unary_unary", "never")(f"{label} deadline".encode(), timeout=0.5))
    check(f"{label}: a deadline passes", error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error)
    check(f"{label}: and the server gives up", echo.event(f"{label} deadline").wait(PATIENCE))
    began = time.monotonic()
    stream = method("unary_stream", "endless")(f"{label} cancelled".encode())
    next(stream)
    stream.cancel()
    over = echo.event(f"{label} cancelled").wait(PATIENCE)
    check(f"{label}: a stream without a deadline is cancelled, and the server gives up", over)
    print(f"after {time.monotonic() - began:.3f} s", flush=True)
    waiting = method("unary_unary", "never").future(f"{label} waiting".encode())
    time.sleep(0.1)
    waiting.cancel()
    check(f"{label}: so is a call that waits for its answer", echo.event(f"{label} waiting").wait(PATIENCE))

    began = time.monotonic()
    right = sum(unary(str(number).encode(), timeout=PATIENCE) == str(number).encode() for number in range(UNARY_CALLS))
    alone = time.monotonic() - began
    check(f"{label}: {UNARY_CALLS} unary calls over one channel", right == UNARY_CALLS, right)
    began = time.monotonic()
    futures = [unary.future(str(number).encode(), timeout=PATIENCE) for number in range(UNARY_CALLS)]
    right = sum(future.result() == str(number).encode() for number, future in enumerate(futures))
    check(f"{label}: {UNARY_CALLS} at once", right == UNARY_CALLS, right)
    print(f"{UNARY_CALLS} unary calls: {alone:.2f} s one after another, {time.monotonic() - began:.2f} s at once",
          flush=True)


def lock_step(label, both):
    """Each message is answered before the next one is sent."""
    came, answered = threading.Event(), []

    def requests():
        for number in range(100):
            yield str(number).encode()
            if not came.wait(PATIENCE):
                return
            came.clear()

    for answer in both(requests(), timeout=PATIENCE):
        answered.append(answer)
        came.set()
    check(f"{label}: both ways, in lock-step", answered == [str(number).encode() for number in range(100)],
          len(answered))


def main():
    cert, key, root = (pathlib.Path(file).read_bytes() for file in sys.argv[1:])
    echo, urls, servers = Echo(), {}, []
    for kind in ["clear", "tls"]:
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=LIMITS)
        server.add_generic_rpc_handlers([echo.handlers()])
        secure = kind == "tls"
        port = (server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)])) if secure
                else server.add_insecure_port("127.0.0.1:0"))
        server.start()
        servers.append(server)
        urls[kind] = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
    print(json.dumps(urls), flush=True)
    told = json.loads(sys.stdin.readline())
    for upstream, (clear, tls) in told["addresses"].items():
        with grpc.insecure_channel(clear, options=LIMITS) as channel:
            try_all(f"to {upstream}", channel, echo, told["token"])
        credentials = grpc.ssl_channel_credentials(root)
        with grpc.secure_channel(tls, credentials, options=LIMITS) as channel:
            try_all(f"over TLS to {upstream}", channel, echo, told["token"])
    for server in servers:
        server.stop(None).wait()


if __name__ == "__main__":
    main()
