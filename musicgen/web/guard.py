"""Who may ask, and what every answer says: an ASGI layer around the application.

The server listens on loopback, but so does every web site that the browser shows, by way of the browser. So:
- the request's Host must be this very server: a foreign name that resolves to 127.0.0.1 (DNS rebinding) is refused;
- anything but the static page is for that page alone: a foreign Origin, or what the browser marks as sent by another
  site (Sec-Fetch-Site), is refused, and no answer ever allows another origin to read it;
- answers say what they may load (Content-Security-Policy), and that they are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
RESULT_POLICY = "sandbox allow-scripts allow-downloads; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
"""Of the page of a result, which holds what a file said: in an origin of its own it can't ask this server for anything.

It has a policy of its own in its head too, and both hold."""

ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": PAGE_POLICY,
}
"""Headers of every answer that has none of that name."""


MOST_ASKED = 2**16
"""Bytes of what is sent, but to the paths that count for themselves."""


class Guard:
    """The application `app`, for requests to 127.0.0.1:port alone.

    static: paths that any page may link to. large: those that see for themselves how much they are sent.
    """

    def __init__(self, app: ASGIApp, port: int, static: Iterable[str], large: Iterable[str] = ()) -> None:
        self.app, self.static, self.large = app, frozenset(static), frozenset(large)
        names = ("127.0.0.1", "localhost", "[::1]")
        self.hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in ALWAYS.items() if n.encode() not in there),
                ]
            await send(message)

        refusal = self.refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            from starlette.responses import JSONResponse

            status, sentence = refusal
            await JSONResponse({"sentence": sentence}, status)(scope, receive, send_with_headers)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason where a request is not answered; None if it is."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1").lower())
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return 403, f"this server answers to http://{min(self.hosts)} only"
        if scope["method"] in ("GET", "HEAD") and scope["path"] in self.static:
            return None
        own = {f"http://{host}" for host in self.hosts}
        if any(origin not in own for origin in headers.get("origin", [])) or any(
            site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])
        ):
            return 403, "another web site has sent this request; it is not answered"
        if scope["path"] not in self.large:
            length = sum(map(int, headers.get("content-length", [])))
            if length > MOST_ASKED or "transfer-encoding" in headers:
                return 413, f"more was sent than {MOST_ASKED:,} bytes of a told length"
        return None
