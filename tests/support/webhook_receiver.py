"""A web server on loopback that takes what a webhook posts."""

import http.server
import json
import threading


class Receiver:
    """Answers with the given statuses in turn (None: hangs up), and then with 204."""

    def __init__(self, *statuses, port=0, tls=None):
        self.requests, self.changed = [], threading.Condition()
        answers = iter(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                status = next(answers, 204)
                with self.changed:
                    request = (status, handler.path, dict(handler.headers), json.loads(body))
                    self.requests.append(request)
                    self.changed.notify_all()
                if status is None:
                    return
                handler.send_response(status)
                if 300 <= status < 400:
                    handler.send_header("Location", f"http://localhost:{self.port}/elsewhere")
                handler.end_headers()

            def log_message(handler, *words):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *words: None  # who calls hangs up, or speaks no TLS
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def wait(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= number, 20)

    def steps(self, status=204):
        return [body["step_id"] for s, _, _, body in self.requests if s == status]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
