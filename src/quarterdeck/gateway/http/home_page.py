"""The page that a browser shows at the gateway's address: what this is, whether it is ready, how to call it.

Only for `GET` of the base URL by a client that accepts `text/html`; every other request gets the same 401 or 404 as
before. The page needs no key, so it shows what `/readyz` shows: models and their states, and behind a foreign name on
loopback only the status (DNS rebinding, see `routes/health`). It has no script and no external resource.
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from html import escape

from quarterdeck.gateway.http.error_responses import RECORD
from quarterdeck.gateway.readiness import Report
from quarterdeck.net.asgi import ASGIApp, Receive, Scope, Send, send_response
from quarterdeck.net.browser_guard import is_local_host

PATHS = frozenset({"/", "/v1", "/v1/"})
MAX_MODELS = 100
REFRESH_SECONDS = 5
"""The page reloads itself until the gateway is ready."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;--tint:#f4f6f8;--good:#0b6b39;
--bad:#a8201a;--wait:#8a5a00}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e8ed;--soft:#a3adb8;--line:#343b44;--tint:#1d2228;
--good:#7fd6a4;--bad:#ff9b92;--wait:#e8c37a}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:44rem;margin:0 auto;padding:2rem 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}
p{margin:.4rem 0}pre{background:var(--tint);padding:.8rem;border-radius:.3rem;overflow-x:auto;font-size:.9rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}th{font-weight:400}
.ready{color:var(--good)}.unavailable,.draining{color:var(--bad)}.starting,.degraded{color:var(--wait)}.soft{color:var(--soft)}
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"vary", b"accept"),
]

STATUS_TEXT = {
    "ready": ("✓", "Ready."),
    "degraded": ("!", "Ready, but a part or a model is not."),
    "starting": ("…", "Starting."),
    "unavailable": ("✗", "Not available."),
    "draining": ("✗", "Shutting down."),
}


class HomePage:
    """Plain ASGI, in front of the check for a key. `is_loopback`: the gateway listens on loopback."""

    def __init__(self, app: ASGIApp, report: Callable[[], Awaitable[Report]], *, is_loopback: bool) -> None:
        self._app = app
        self._report = report
        self._is_loopback = is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS or not _is_browser(scope):
            await self._app(scope, receive, send)
            return
        scope[RECORD].route = "/"
        report = await self._report()
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        is_local = is_local_host(host)
        address = f"{scope.get('scheme', 'http')}://{host.decode('ascii')}" if is_local else None
        body = render(report, address, shows_models=is_local or not self._is_loopback).encode()
        await send_response(send, 200, body, HEADERS)


def _is_browser(scope: Scope) -> bool:
    """Browsers name `text/html` when they navigate; API clients accept `*/*` or JSON."""
    return scope["method"] in ("GET", "HEAD") and any(
        name == b"accept" and b"text/html" in value.lower() for name, value in scope["headers"]
    )


def render(report: Report, address: str | None, *, shows_models: bool) -> str:
    """The page. Pure. `address`: the gateway's, where the request's Host is an IP address or localhost; else None,
    because any other Host is the caller's word."""
    sign, text = STATUS_TEXT.get(report.status, ("?", report.status))
    base_url = f"{address or 'https://THIS-HOST'}/v1"
    chat = next((name for name, found in report.models.items() if found.task != "embed"), None)
    model = chat if shows_models and chat else "MODEL"
    refresh = "" if report.is_ready else f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
{refresh}<link rel="icon" href="data:,">
<title>Quarterdeck</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Quarterdeck</h1>
<p class="soft">A self-hosted OpenAI platform. This is its API; it has no login page.</p>
<h2>Status</h2>
<p class="{escape(report.status)}"><strong>{sign} {escape(text)}</strong></p>
{_models(report) if shows_models else ""}
<h2>Call it</h2>
<p>Any client of OpenAI's API works with this base URL and a key of this platform:</p>
<pre>export OPENAI_BASE_URL={escape(base_url)}
export OPENAI_API_KEY=KEY</pre>
<pre>curl $OPENAI_BASE_URL/chat/completions \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{escape(model)}",
       "messages": [{{"role": "user", "content": "Hello!"}}]}}'</pre>
<p>Keys come from the platform's operator: <code>quarterdeck keys create NAME</code>. On the machine where it runs,
<code>quarterdeck env</code> prints both variables.</p>
<p class="soft"><code>GET /v1/models</code> lists the models of a key; <code>GET /readyz</code> returns this
status as JSON.</p>
</main>
</body>
</html>
"""


def _models(report: Report) -> str:
    if not report.models:
        return "<p>No models are configured.</p>"
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="{escape(found.state)}">{escape(found.state)}'
        f"{f': {escape(found.detail)}' if found.detail else ''}</td></tr>"
        for name, found in list(report.models.items())[:MAX_MODELS]
    ]
    more = len(report.models) - MAX_MODELS
    rest = f'<p class="soft">and {more:,} more</p>' if more > 0 else ""
    return f"<table>\n{chr(10).join(rows)}\n</table>{rest}"
