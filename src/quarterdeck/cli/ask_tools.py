"""The tools of `quarterdeck ask`: the weather of a place, and the price of a stock.

They call public APIs that need no key: Open-Meteo, and Stooq (or Alpha Vantage with a key). The environment names
others of the same form.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

Json = dict[str, Any]

WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "The current weather of one place: temperature in °C, wind in km/h, humidity in %, sky.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string", "description": "One city, such as Oslo"}},
        "required": ["place"],
        "additionalProperties": False,
    },
}
STOCK: Json = {
    "type": "function",
    "name": "stock",
    "description": "The latest price of one stock.",
    "parameters": {
        "type": "object",
        "properties": {"symbol": {"type": "string", "description": "Ticker symbol, such as AAPL or SAP.DE"}},
        "required": ["symbol"],
        "additionalProperties": False,
    },
}
TOOLS = (WEATHER, STOCK)

GEOCODING_URL = "https://geocoding-api.open-meteo.com/v1/search"
FORECAST_URL = "https://api.open-meteo.com/v1/forecast"
STOOQ_URL = "https://stooq.com/q/l/"
ALPHA_VANTAGE_URL = "https://www.alphavantage.co/query"
VARIABLES = {
    "QUARTERDECK_GEOCODING_URL": "finds places, in the form of Open-Meteo's",
    "QUARTERDECK_FORECAST_URL": "the weather, in the form of Open-Meteo's",
    "QUARTERDECK_STOCK_URL": "prices, in the form of Stooq's, or of Alpha Vantage's where there is a key",
    "QUARTERDECK_STOCK_KEY": "a key of Alpha Vantage",
}
TIMEOUT_SECONDS = 15.0
MAX_BYTES = 1024 * 1024
_SKIES = {
    **dict.fromkeys(("0", "1"), "clear"),
    **dict.fromkeys(("2", "3"), "cloudy"),
    **dict.fromkeys(("45", "48"), "fog"),
    **dict.fromkeys(("51", "53", "55", "56", "57"), "drizzle"),
    **dict.fromkeys(("61", "63", "65", "66", "67", "80", "81", "82"), "rain"),
    **dict.fromkeys(("71", "73", "75", "77", "85", "86"), "snow"),
    **dict.fromkeys(("95", "96", "99"), "thunderstorm"),
}
"""By the WMO's code of the weather."""


class ToolError(Exception):
    """A tool has no answer. The model is given the message."""


class Tools:
    """Calls the tools. `variables`: the environment."""

    def __init__(self, client: httpx.Client, variables: Mapping[str, str]) -> None:
        self._client = client
        self._geocoding = variables.get("QUARTERDECK_GEOCODING_URL") or GEOCODING_URL
        self._forecast = variables.get("QUARTERDECK_FORECAST_URL") or FORECAST_URL
        self._stock_key = variables.get("QUARTERDECK_STOCK_KEY", "").strip()
        self._stock = variables.get("QUARTERDECK_STOCK_URL") or (ALPHA_VANTAGE_URL if self._stock_key else STOOQ_URL)
        self._tools: dict[str, tuple[str, Callable[[str], Json]]] = {
            "weather": ("place", self.weather),
            "stock": ("symbol", self.stock),
        }

    def call(self, name: str, arguments: str) -> Json:
        """The result of a call that a model has written, or `{"error": …}`."""
        if name not in self._tools:
            return {"error": f"There is no tool '{name}'. Tools: {', '.join(self._tools)}."}
        argument, tool = self._tools[name]
        try:
            given = json.loads(arguments or "{}")
        except ValueError:
            return {"error": "The arguments are not valid JSON."}
        value = given.get(argument) if isinstance(given, dict) else None
        if not isinstance(value, str) or not value.strip():
            return {"error": f"Missing argument: '{argument}', a string."}
        try:
            return tool(value.strip()[:100])
        except ToolError as error:
            return {"error": str(error)}

    def weather(self, place: str) -> Json:
        """Raises ToolError."""
        found = self._json(self._geocoding, {"name": place, "count": 1, "language": "en", "format": "json"})
        results = found.get("results")
        if not isinstance(results, list) or not results or not isinstance(results[0], dict):
            raise ToolError(f"No place is called '{place}'.")
        at = results[0]
        wanted = "temperature_2m,relative_humidity_2m,weather_code,wind_speed_10m"
        where = {"latitude": at.get("latitude"), "longitude": at.get("longitude"), "current": wanted}
        now = self._json(self._forecast, where).get("current")
        if not isinstance(now, dict) or not isinstance(now.get("temperature_2m"), int | float):
            raise ToolError("The weather service gave no weather.")
        return {
            "place": at.get("name"),
            "country": at.get("country"),
            "time": now.get("time"),
            "temperature_c": now["temperature_2m"],
            "wind_kmh": now.get("wind_speed_10m"),
            "humidity_percent": now.get("relative_humidity_2m"),
            "sky": _SKIES.get(str(now.get("weather_code")), "unknown"),
        }

    def stock(self, symbol: str) -> Json:
        """Raises ToolError."""
        return self._alpha_vantage(symbol) if self._stock_key else self._stooq(symbol)

    def _stooq(self, symbol: str) -> Json:
        asked = symbol.lower() if "." in symbol else f"{symbol.lower()}.us"
        text = self._get(self._stock, {"s": asked, "f": "sd2t2c", "h": "", "e": "csv"})
        row = next(csv.DictReader(io.StringIO(text)), None) or {}
        try:
            return {"symbol": row["Symbol"], "price": float(row["Close"]), "time": f"{row['Date']} {row['Time']}"}
        except (KeyError, TypeError, ValueError):
            raise ToolError(f"No price is known of '{symbol}'.") from None

    def _alpha_vantage(self, symbol: str) -> Json:
        asked = {"function": "GLOBAL_QUOTE", "symbol": symbol, "apikey": self._stock_key}
        quote = self._json(self._stock, asked).get("Global Quote")
        if not isinstance(quote, dict):
            raise ToolError(f"No price is known of '{symbol}'.")
        try:
            price = float(quote["05. price"])
        except (KeyError, TypeError, ValueError):
            raise ToolError(f"No price is known of '{symbol}'.") from None
        return {"symbol": symbol.upper(), "price": price, "time": quote.get("07. latest trading day")}

    def _json(self, url: str, params: Mapping[str, Any]) -> Json:
        try:
            found = json.loads(self._get(url, params))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ToolError(f"{httpx.URL(url).host} did not answer with a JSON object.")
        return found

    def _get(self, url: str, params: Mapping[str, Any]) -> str:
        """Never with the URL in an error: it may have a key."""
        host = httpx.URL(url).host
        try:
            with self._client.stream("GET", url, params=dict(params), timeout=TIMEOUT_SECONDS) as response:
                body = b""
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise ToolError(f"{host} answered with more than {MAX_BYTES} bytes.")
                if response.status_code != 200:
                    raise ToolError(f"{host} answered with status {response.status_code}.")
        except httpx.HTTPError as error:
            raise ToolError(f"{host} could not be reached ({type(error).__name__}).") from None
        return body.decode(errors="replace")
