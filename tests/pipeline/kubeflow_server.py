"""An HTTP server with the routes of Kubeflow Pipelines' v2beta1 API that the client calls, on this machine alone."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Server:
    """What the server holds, and how it behaves.

    Attributes:
      url: its address.
      api: version of the API that it speaks.
      multi_user: whether it wants a namespace.
      token: bearer token that it asks for.
      broken: status and body that it answers instead, by method and the route's beginning: "POST /pipelines".
      states: what a run is at each look, with the states of its tasks; the last one stays.
      stored: pipelines, versions, experiments, runs and recurring runs, in order.
      files: uploaded, by version.
      calls: "METHOD /route" in order.
      tokens: that came with the calls.
    """

    url: str = ""
    api: str = "v2beta1"
    multi_user: bool = False
    token: str | None = None
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    states: list[tuple[str, dict[str, str]]] = field(default_factory=lambda: [("SUCCEEDED", {})])
    errors: dict[str, str] = field(default_factory=dict)
    stored: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {key: [] for key in ("pipelines", "versions", "experiments", "runs", "recurringruns")}
    )
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def count(self, call: str) -> int:
        return sum(item == call for item in self.calls)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Answers until the end of the block."""

    class Handler(_Handler):
        state = server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        state = self.state
        match = re.fullmatch(rf"/apis/{state.api}(/.*)", address.path)
        if not match:
            self._send(404, "Not Found")
            return
        call = f"{self.command} {match[1]}"
        state.calls.append(call)
        state.tokens.append(self.headers.get("Authorization"))
        broken = next((answer for key, answer in state.broken.items() if call.startswith(key)), None)
        if broken:
            self._send(*broken)
        elif state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
            self._send(401, "no valid token")
        else:
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            self._send(200, json.dumps(self._do(self.command, match[1], query, body)))

    def _send(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if text.startswith("<") else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _do(self, method: str, route: str, query: dict[str, str], body: bytes) -> Any:
        state = self.state
        match (method, *route.strip("/").split("/")):
            case ("GET", "healthz"):
                return {"multi_user": state.multi_user}
            case ("POST", "pipelines", "upload_version"):
                message = BytesParser().parsebytes(
                    b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
                )
                state.files[query["name"]] = message.get_payload(0).get_payload(decode=True)  # type: ignore[union-attr]
                version = {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
                return self._store("versions", "pipeline_version_id", version)
            case ("GET", "pipelines", pipeline_id, "versions"):
                listed = [item for item in state.stored["versions"] if item["pipeline_id"] == pipeline_id]
                return self._page("pipeline_versions", listed, query)
            case ("GET", "runs", run_id):
                run = next(item for item in state.stored["runs"] if item["run_id"] == run_id)
                run_state, tasks = state.states.pop(0) if len(state.states) > 1 else state.states[0]
                return run | {
                    "state": run_state,
                    "run_details": {"task_details": [self._task(*item) for item in tasks.items()]},
                }
            case ("DELETE", "recurringruns", recurring_run_id):
                kept = [item for item in state.stored["recurringruns"] if item["recurring_run_id"] != recurring_run_id]
                state.stored["recurringruns"] = kept
                return {}
            case ("GET", kind):
                return self._page({"recurringruns": "recurringRuns"}.get(kind, kind), state.stored[kind], query)
            case ("POST", kind):
                key = {"recurringruns": "recurring_run_id"}.get(kind, f"{kind.removesuffix('s')}_id")
                return self._store(kind, key, json.loads(body))
        raise AssertionError(f"{method} {route}")

    def _task(self, name: str, task_state: str) -> dict[str, Any]:
        error = {"error": {"message": self.state.errors[name]}} if name in self.state.errors and task_state == "FAILED" else {}
        times = {"start_time": "2024-05-01T10:00:00Z", "end_time": "2024-05-01T10:00:42Z"}
        return {"display_name": name, "state": task_state, **times, **error}

    def _store(self, kind: str, key: str, item: dict[str, Any]) -> dict[str, Any]:
        stored = self.state.stored[kind]
        stored.append({key: f"{kind}-{len(self.state.calls)}", **item})
        return stored[-1]

    def _page(self, key: str, items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        """One item a page, so that a client that reads only the first is found out."""
        predicates = json.loads(query["filter"])["predicates"] if "filter" in query else []
        found = [item for item in items if all(item[part["key"]] == part["stringValue"] for part in predicates)]
        found = [item for item in found if (item.get("namespace") or None) in (None, query.get("namespace"))]
        start = int(query.get("page_token") or 0)
        following = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
        return {key: found[start : start + 1], **following}
