"""The proxies of docs/operations/tls.md, as written there, in front of a gateway: streams arrive unbuffered.

Caddy and nginx are Debian's, unpacked. Ports and certificates of the examples are replaced by the test's.
"""

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from tests.cli.running import free_ports
from tests.debian_packages import unpacked
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import CONTRACT, RedisServer, ServerProcess, short_folder

from quarterdeck import ids
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

pytestmark = pytest.mark.long

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/tls.md"
CONFIG = "models: [{name: chat, engine: {source: ./chat}}]\n"
KEY = ids.api_key()


class Proxy(ServerProcess):
    """A proxy with the example's configuration."""

    def __init__(self, folder: Path, name: str, gateway_port: int) -> None:
        super().__init__()
        self.folder = folder
        self.name = name
        (self.port,) = free_ports(1)
        self.log = folder / f"{name}.log"
        self.file = folder / name
        example = re.search(rf"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert example is not None
        text = example[1].replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}").replace("/etc/ssl/", f"{folder}/")
        if name == "nginx":
            paths = "".join(
                f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
            head = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
            text = f"{head}http {{\naccess_log off;\n{paths}\n{text}\n}}\n"
        else:
            text = text.replace("llm.example.com {", f"https://llm.example.com:{self.port} {{")
            text = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + text
        self.file.write_text(text)

    def command(self) -> list[str]:
        if self.name == "nginx":
            root = unpacked(("nginx", "nginx-common"), "usr/sbin/nginx")
            return [str(root / "usr/sbin/nginx"), "-c", str(self.file), "-p", str(self.folder)]
        caddy = unpacked(("caddy",), "usr/bin/caddy") / "usr/bin/caddy"
        home = [f"HOME={self.folder}", f"XDG_DATA_HOME={self.folder}", f"XDG_CONFIG_HOME={self.folder}"]
        return ["env", *home, str(caddy), "run", "--config", str(self.file), "--adapter", "caddyfile"]

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def client(self) -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.folder / "llm.pem"))
        return httpx.Client(
            base_url=f"https://llm.example.com:{self.port}", transport=ToLoopback(verify=trust), timeout=60
        )


class ToLoopback(httpx.HTTPTransport):
    """Connects to this machine, with the public name in SNI and Host."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


@pytest.fixture(scope="module")
def platform(redis_server: RedisServer) -> Iterator[tuple[SimulatorProcess, GatewayProcess, Path]]:
    folder = short_folder()
    simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "300ms"])
    simulator.start()
    url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(seed(url))
    environ = {
        "QUARTERDECK_ENGINE_URL": simulator.url,
        "QUARTERDECK_REDIS_URL": redis_server.url(CONTRACT),
        "QUARTERDECK_DATABASE_URL": url,
    }
    gateway = GatewayProcess(folder, CONFIG, environ)
    gateway.start()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    more = ["-days", "2", "-subj", "/CN=llm.example.com", "-addext", "subjectAltName=DNS:llm.example.com"]
    subprocess.run(
        [*command, *more, "-out", folder / "llm.pem", "-keyout", folder / "llm.key"], check=True, capture_output=True
    )
    yield simulator, gateway, folder
    gateway.stop()
    simulator.stop()
    shutil.rmtree(folder)


async def seed(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await KeyStore(database).ensure(secret=KEY, name="key")
    await database.close()


@pytest.mark.parametrize("name", ["caddyfile", "nginx"])
def test_a_stream_arrives_token_by_token(platform: tuple[SimulatorProcess, GatewayProcess, Path], name: str) -> None:
    simulator, gateway, folder = platform
    proxy = Proxy(folder, name, gateway.port)
    proxy.start()
    try:
        with proxy.client() as http, OpenAI(base_url=f"{http.base_url}/v1", api_key=KEY, http_client=http) as client:
            stream = client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "Hello"}], stream=True, max_tokens=20
            )
            chunks = iter(stream)
            next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content)
            assert simulator.running() == 1  # the engine is still writing: nothing was held back
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    finally:
        proxy.stop()
