"""The page served to this machine alone, with a box whose text is scored anew."""

import json
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sb3_llm.errors import SetupError
from sb3_llm.watch.page import as_data, as_page, step_data
from sb3_llm.watch.recording import Replay

HOST = "127.0.0.1"  # never another: whoever reaches the page can ask the model
LONGEST = 100_000  # bytes of a question


class Busy(RuntimeError):
    """The model can't be asked now."""


def scored(policy: Any, text: str, phrases: Sequence[str] | None) -> dict[str, Any]:
    """
    :param policy: that is asked
    :param text: observation text
    :param phrases: where phrases come with each observation
    :return: what the policy says of it, as the page's script reads it
    """
    offered = None if phrases is None else [phrases]
    return step_data(policy.explain([text], attribution=("deletion",), phrases=offered)[0])


class Server(ThreadingHTTPServer):
    """
    Serves a replay, and what the policy says of other texts.

    The address holds a token, without which nothing is answered; requests under another name than this machine's are
    refused too, so that no page from elsewhere can ask.

    :param replay: gives what is shown now
    :param policy: that is asked
    :param phrases: of a text that is asked about, where phrases come with each observation
    :param port: 0 takes any that is free
    :raises SetupError: if the port is in use
    """

    daemon_threads = True

    def __init__(
        self, replay: Callable[[], Replay], policy: Any, phrases: Sequence[str] | None = None, port: int = 0
    ) -> None:
        self.replay, self.policy, self.phrases = replay, policy, phrases
        self.token, self.lock = secrets.token_urlsafe(16), Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            mend = "pass another --port, or --port 0 for any that is free"
            raise SetupError(f"port {port} ({error.strerror})", "a port that nothing listens on", mend) from None

    @property
    def url(self) -> str:
        """:return: where the page is."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    def page(self) -> str:
        """:return: the page as it is now."""
        return as_page(self.replay(), {"url": "/ask", "token": self.token})

    def news(self) -> dict[str, Any] | None:
        """:return: how far a training is, and the number of its newest episodes; None where nothing is trained."""
        return None

    def answer(self, text: str) -> dict[str, Any]:
        """:return: what the policy says of a text; one question at a time."""
        with self.lock:
            return scored(self.policy, text, self.phrases)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        news = self.server.news()
        if parts.path == "/":
            if self._trusted(parse_qs(parts.query).get("token", [""])[0]):
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page())
        elif news is None or parts.path not in ("/news", "/episodes"):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "There is one page, at /.")
        elif self._trusted(self.headers.get("X-Token", "")):
            told = news if parts.path == "/news" else news | {"data": as_data(self.server.replay())}
            self._send(HTTPStatus.OK, "application/json", json.dumps(told))

    def do_POST(self) -> None:
        if urlsplit(self.path).path != "/ask":
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", "Questions go to /ask.")
        if not self._trusted(self.headers.get("X-Token", "")):
            return None
        tell = partial(self._send, kind="application/json")
        try:
            tell(HTTPStatus.OK, body=json.dumps(self.server.answer(self._question())))
        except Busy as error:
            tell(HTTPStatus.SERVICE_UNAVAILABLE, body=json.dumps({"error": str(error)}))
        except (ValueError, KeyError, TypeError, FloatingPointError) as error:  # SetupError is a ValueError
            tell(HTTPStatus.BAD_REQUEST, body=json.dumps({"error": str(error)}))

    def _question(self) -> str:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= LONGEST:
            raise ValueError(f"a question of {length} bytes")
        text = json.loads(self.rfile.read(length))["text"]
        if not isinstance(text, str):
            raise ValueError("the text is no string")
        return text

    def _trusted(self, token: str) -> bool:
        own = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        trusted = secrets.compare_digest(token.encode(), self.server.token.encode()) and self.headers.get("Host") in own
        if not trusted:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "Open the address that was printed: it holds a token.")
        return trusted

    def _send(self, status: HTTPStatus, kind: str, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal belongs to the program."""
