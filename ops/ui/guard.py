"""Who may look, and what a page may do: token, host names, headers. What a model wrote can be
anything, so the page runs no script but ours and every answer says what it is."""

import hmac
import ipaddress
import secrets

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

COOKIE = "mmzero_ui"
TOKEN_BYTES = 24

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Server": "mmzero",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def guarding(token: str) -> list[Middleware]:
    """The middlewares, outermost first. An empty token: whoever reaches the port may look, if it
    calls this machine by a loopback name, which no other site's page can be made to do."""

    @web.middleware
    async def ours(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not token and not is_loopback(_hostname(request.host)):
            raise web.HTTPForbidden(text="open this page as http://127.0.0.1 or http://localhost\n")
        # A page of another site may send what changes something; a browser then says from where.
        origin = request.headers.get("Origin")
        if request.method not in ("GET", "HEAD") and origin not in (None, _origin(request)):
            raise web.HTTPForbidden(text="this page changes nothing for another site\n")
        return await handler(request)

    @web.middleware
    async def known(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not token:
            return await handler(request)
        shown = request.query.get("token")
        if shown is not None and request.path == "/":
            if not _same(shown, token):
                raise _unauthorized()
            # Away with the token from address bar and history.
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", path="/")
            return answer
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if _same(sent, token) or _same(request.cookies.get(COOKIE, ""), token):
            return await handler(request)
        raise _unauthorized()

    return [ours, known]


async def with_headers(request: web.Request, response: web.StreamResponse) -> None:
    """To be called before any answer's headers are sent, an error's and a stream's too."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _same(shown: str, token: str) -> bool:
    """In a time that tells nothing of the token."""
    sent = shown.encode("utf-8", "surrogateescape")  # a header can hold any bytes
    return hmac.compare_digest(sent, token.encode())


def _unauthorized() -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(
        text="this dashboard asks for the token that `mmzero ui` printed: open the address that it "
        "printed, or send Authorization: Bearer TOKEN\n",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _hostname(host: str) -> str:
    """Of `name:port`, `[::1]:port`."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host


def _origin(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"
