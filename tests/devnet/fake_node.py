"""A tiny stand-in for a node's process: answers like a ready node, and misbehaves as it is told.

usage: fake_node.py NAME RPC_PORT METRICS_PORT [die | deaf | unready]
"""

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, RPC_PORT, METRICS_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
MANNERS = sys.argv[4:]

if "die" in MANNERS:
    print(f"{NAME}: the database is damaged", flush=True)
    sys.exit(20)
if "deaf" in MANNERS:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

STATUS = {"head": {"height": 7, "hash": "0x07"}, "view": 0, "primary": "validator-01"}
METRICS = b'qenex_chain_transactions_total{outcome="ok"} 5.0\nqenex_chain_finality_seconds_sum 0.5\n'


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, METRICS)
        elif self.path == "/ready" and "unready" in MANNERS:
            self.answer(503, b'{"ready":false,"reasons":[{"code":"no_quorum"}]}')
        else:
            self.answer(200, b'{"ready":true,"reasons":[]}')

    def do_POST(self) -> None:
        results = {"qenex_status": STATUS, "net_peers": {"peers": [1, 2, 3]}}
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        calls = asked if isinstance(asked, list) else [asked]
        answers = [{"id": call["id"], "result": results[call["method"]]} for call in calls]
        self.answer(200, json.dumps(answers if isinstance(asked, list) else answers[0]).encode())

    def log_message(self, *_: object) -> None:
        pass


for port in (RPC_PORT, METRICS_PORT):
    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"{NAME}: started", flush=True)
# Woken by whatever thread takes the signal: after a pause the kernel may choose any of them.
while True:
    time.sleep(0.05)
