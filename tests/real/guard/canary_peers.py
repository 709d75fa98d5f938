"""What stands at the other ends: APIs, a token endpoint, an egress proxy, a relay to Redis. They write down every byte
that they receive, by whose it should be, and repeat secrets in every answer that goes wrong."""

import base64
import contextlib
import json
import re
import socket
import struct
import subprocess
import threading
import time
import urllib.parse

from support import Process, free_port

PAUSE = 20


class Peer:
    """A TCP server with a thread for each connection."""

    def __init__(self, name, canaries):
        self.name, self.canaries = name, canaries
        # {whose: bytes}
        self.received, self.lock = {}, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream):
        with stream, contextlib.suppress(OSError):
            stream.settimeout(60)
            self.serve(stream)

    def note(self, whose, data):
        with self.lock:
            self.received[whose] = self.received.get(whose, b"") + data

    def close(self):
        self.listener.close()


def read_request(stream, rest=b""):
    """One request as it came: its head, its body. None at the end."""
    data = rest
    while b"\r\n\r\n" not in data:
        more = stream.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    chunked = re.search(rb"(?im)^transfer-encoding:.*chunked", head)
    while (length and len(body) < int(length[1])) or (chunked and not body.endswith(b"0\r\n\r\n")):
        more = stream.recv(65536)
        if not more:
            break
        body += more
    return head, body


def answer(status, body, *fields):
    body = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def secret_line(head):
    """The request's authenticating line, as it came."""
    found = re.search(rb"(?im)^(?:authorization|x-key): .*$", head)
    return found[0].strip() if found else b""


# What an upstream does with /up/CREDENTIAL/WORD. Those that repeat on purpose what they got come back to the caller.
ECHOES = ["echo", "echo401", "echo403", "echo500"]
UPSTREAM_FAULTS = ["ok", "reset", "garbage", "garbage-field", "huge-head", "cut", "empty", "early", "hang", "redirect"]


class Upstream(Peer):
    """An API. The credential that a request should carry stands in its path."""

    def serve(self, stream):
        while True:
            request = read_request(stream)
            if request is None:
                return
            head, body = request
            words = head.split(b" ", 2)[1].decode().partition("?")[0].split("/")
            whose, what = (words[2], words[-1]) if len(words) > 3 else ("?", "?")
            # One route speaks HTTP/2 to this, which does not know it.
            self.note("no-h2" if head.startswith(b"PRI ") else whose, head + b"\r\n\r\n" + body)
            secret = secret_line(head)
            shown = secret.decode("latin-1")
            match what:
                case "reset":
                    return reset(stream)
                case "garbage":
                    stream.sendall(secret + b"\r\n" + head)
                    return None
                case "garbage-field":
                    stream.sendall(b"HTTP/1.1 200 OK\r\n" + secret + b"\0 \x01: x\r\nBad " + secret + b"\r\n\r\n")
                    return None
                case "huge-head":
                    line = b"X-Echo: " + secret + b"\r\n"
                    stream.sendall(b"HTTP/1.1 200 OK\r\n" + line * 20000 + b"\r\n")
                    return None
                case "cut":
                    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                    return None
                case "empty":
                    return None
                case "early":
                    stream.sendall(answer("413 Too Large", "no") + secret)
                    return None
                case "hang":
                    time.sleep(PAUSE)
                    return None
                case "redirect":
                    stream.sendall(answer("302 Found", "", "Location: http://elsewhere.example/"))
                case "echo":
                    stream.sendall(answer("200 OK", head + body, f"X-Echo: {shown}"))
                case "echo401" | "echo403" | "echo500":
                    stream.sendall(answer(f"{what[4:]} No", head, f"WWW-Authenticate: Bearer realm=\"{shown}\""))
                case _:
                    stream.sendall(answer("200 OK", "fine"))


# How a token endpoint goes wrong: /token/FAULT/CREDENTIAL.
TOKEN_FAULTS = ["description", "error", "html", "huge", "garbage", "garbage-field", "token-of-words", "token-type",
                "expires", "nested", "cut", "hang", "reset", "redirect", "unauthorized", "broken-json", "empty"]


class Authorization(Peer):
    """An authorization server: a page that sends the browser straight back, token and revocation endpoints."""

    def __init__(self, name, canaries):
        super().__init__(name, canaries)
        # How it goes wrong for logins, which begin well.
        self.fault = {}

    def serve(self, stream):
        while True:
            request = read_request(stream)
            if request is None:
                return
            head, body = request
            target = head.split(b" ", 2)[1].decode()
            words, query = target.partition("?")[0].split("/"), urllib.parse.parse_qs(target.partition("?")[2])
            if words[1] == "auth":
                stream.sendall(self.back(words[2], query))
                continue
            kind, whose = (words[2], words[3]) if len(words) > 3 else ("?", "?")
            self.note(whose, head + b"\r\n\r\n" + body)
            fault = self.fault.get(whose, kind)
            form = urllib.parse.parse_qs(body.decode())
            for name in ["code_verifier", "client_assertion"]:
                for value in form.get(name, []):
                    self.canaries.add(value.rpartition(".")[2], name, [(self.name, whose)])
            if not self.say(stream, fault, whose, head, body, form):
                return

    def back(self, whose, query):
        code = self.canaries.new("code", [(self.name, whose)]).value
        # It came by the browser.
        self.canaries.add(query["state"][0], "state", [("browser", "")])
        uri = query["redirect_uri"][0]
        return answer("302 Found", "", f"Location: {uri}?" + urllib.parse.urlencode(
            {"code": code, "state": query["state"][0]}))

    def tokens(self, whose, form):
        token = self.canaries.new("access token", [("upstream", whose)]).value
        found = {"access_token": token, "token_type": "Bearer", "expires_in": 3}
        if form.get("grant_type") != ["client_credentials"]:
            found["refresh_token"] = self.canaries.new("refresh token", [(self.name, whose)]).value
            found["id_token"] = self.canaries.new("id token").value
        return found

    def say(self, stream, fault, whose, head, body, form):
        """Whether the connection goes on."""
        sent = secret_line(head) + b" " + body
        text = sent.decode("latin-1")
        sure = "Content-Type: application/json"
        match fault:
            case "ok":
                stream.sendall(answer("200 OK", json.dumps(self.tokens(whose, form)), sure))
                return True
            case "description":
                plain = text + " " + urllib.parse.unquote_plus(text) + " " + unbasic(text)
                told = json.dumps({"error": "invalid_client", "error_description": plain})
                stream.sendall(answer("400 Bad", told, sure))
            case "unauthorized":
                told = json.dumps({"error": "invalid_client", "error_description": unbasic(text) + text})
                stream.sendall(answer("401 No", told, sure, f"WWW-Authenticate: Basic realm=\"{text}\""))
            case "error":
                stream.sendall(answer("400 Bad", json.dumps({"error": text}), sure))
            case "html":
                stream.sendall(answer("500 Oops", f"<html><body><pre>{text}</pre>", "Content-Type: text/html"))
            case "huge":
                stream.sendall(answer("500 Oops", (text + "\n") * (200_000 // len(text)), "Content-Type: text/plain"))
            case "garbage":
                stream.sendall(sent + b"\r\n\r\n")
            case "garbage-field":
                stream.sendall(b"HTTP/1.1 400 Bad\r\n" + sent + b"\0: x\r\n\r\n")
            case "token-of-words":
                token = self.canaries.new("access token").value
                told = json.dumps({"access_token": f"{token} {token}", "token_type": "Bearer"})
                stream.sendall(answer("200 OK", told, sure))
            case "token-type":
                token = self.canaries.new("access token").value
                told = json.dumps({"access_token": token, "token_type": unbasic(text) or text})
                stream.sendall(answer("200 OK", told, sure))
            case "expires":
                token = self.canaries.new("access token").value
                stream.sendall(answer("200 OK", json.dumps({"access_token": token, "expires_in": text}), sure))
            case "nested":
                token = self.canaries.new("access token").value
                stream.sendall(answer("200 OK", json.dumps({"access_token": [token], "refresh_token": token}), sure))
            case "broken-json":
                token = self.canaries.new("access token").value
                stream.sendall(answer("200 OK", f'{{"access_token": "{token}", "token_type": Bearer', sure))
            case "cut":
                stream.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 100000\r\n\r\n" + sent)
            case "hang":
                time.sleep(PAUSE)
            case "reset":
                reset(stream)
            case "redirect":
                told = urllib.parse.quote(text, safe="")
                stream.sendall(answer("302 Found", "", f"Location: http://elsewhere.example/?{told}"))
        return False


def unbasic(text):
    """The name and password of a Basic header, plain."""
    found = re.search(r"(?i)basic ([A-Za-z0-9+/=]+)", text)
    return base64.b64decode(found[1]).decode("latin-1") if found else ""


class Proxy(Peer):
    """An egress proxy: whatever host is asked for is one of the peers. `refused.example` it repeats and refuses."""

    def __init__(self, name, canaries, upstream, authorization):
        super().__init__(name, canaries)
        self.ports = {"token.example": authorization.port}
        self.otherwise = upstream.port

    def serve(self, stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.recv(1)
            if not byte:
                return
            head += byte
        user = unbasic(head.decode("latin-1")).partition(":")[0]
        self.note(user, head)
        host = head.split(b" ")[1].decode().partition(":")[0]
        if host == "refused.example":
            shown = unbasic(head.decode("latin-1"))
            stream.sendall(answer("407 " + shown, head, f"Proxy-Authenticate: Basic realm=\"{shown}\""))
            return
        if host == "garbage.example":
            stream.sendall(b"HTTP/1.1 \0" + head)
            return
        with socket.create_connection(("127.0.0.1", self.ports.get(host, self.otherwise))) as onward:
            stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            pump(stream, onward)


class Relay(Peer):
    """To a server of another kind, byte for byte."""

    def __init__(self, name, canaries, port):
        super().__init__(name, canaries)
        self.onward = port

    def serve(self, stream):
        with socket.create_connection(("127.0.0.1", self.onward)) as onward:
            pump(stream, onward, lambda data: self.note("", data))


def pump(one, other, note=lambda data: None):
    def back():
        with contextlib.suppress(OSError):
            while data := other.recv(65536):
                one.sendall(data)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=back, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            note(data)
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


class Redis(Process):
    """A server that asks for a password."""

    def __init__(self, program, directory, password):
        self.port, self.password = free_port(), password
        quoted = password.replace("\\", "\\\\").replace('"', '\\"')
        directory.mkdir()
        (directory / "redis.conf").write_text(f'bind 127.0.0.1\nport {self.port}\ndir {directory}\nappendonly yes\n'
                                              f'requirepass "{quoted}"\n')
        super().__init__(program, directory / "redis.conf", stdout=subprocess.DEVNULL)

    def say(self, *commands):
        """Sends commands, once it listens."""
        lines = [["AUTH", self.password], *commands]
        text = ""
        for words in lines:
            text += f"*{len(words)}\r\n" + "".join(f"${len(w.encode())}\r\n{w}\r\n" for w in words)
        for _ in range(200):
            with (contextlib.suppress(ConnectionRefusedError),
                  socket.create_connection(("127.0.0.1", self.port)) as stream):
                stream.settimeout(1)
                stream.sendall(text.encode())
                with contextlib.suppress(TimeoutError):
                    return stream.recv(65536)
                return b""
            time.sleep(0.05)
        raise RuntimeError("Redis does not start")
