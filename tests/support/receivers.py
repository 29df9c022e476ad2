"""Receivers on loopback: one network double that does as it is told, for every kind of receiver."""

import contextlib
import http.client
import io
import json
import socket
import subprocess
import threading
import time

REFUSED = b"\x20\x02\x00\x05"  # of a broker: not authorised


class Double:
    """Does `act(connection)` with each connection; what it was sent is in `records`.

    Attributes:
        heads: of an HTTP request its status, path and headers; of an MQTT message its topic and
            whether it is retained, and if that is PREFIX/available, its text.
        greeting: of an MQTT client its name, topic and text of its last will, user and password.
    """

    def __init__(self, act, port=0, tls=None):
        self.records, self.heads, self.greeting = [], [], []
        self.changed = threading.Condition()
        self._act, self._tls, self._open = act, tls, []
        self._door = socket.create_server(("127.0.0.1", port))
        self.port = self._door.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._door.accept()
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection):
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._act(self, connection)

    def took(self, record, head):
        with self.changed:
            self.records.append(record)
            self.heads.append(head)
            self.changed.notify_all()

    def wait(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.records) >= number, 20), self.records

    def steps(self):
        return [record["step_id"] for record in self.records]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (self._door, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    close = __exit__


def web_server(*statuses):
    """Answers requests with these statuses in turn (None: hangs up), and then with 204."""
    answers = iter(statuses)

    def act(double, connection):
        with connection.makefile("rb") as file:
            if not (line := file.readline()):
                return
            headers = http.client.parse_headers(file)
            body = json.loads(file.read(int(headers["Content-Length"])))
            status = next(answers, 204)
            double.took(body, (status, line.split()[1].decode(), headers))
            if status is not None:
                where = f"Location: http://127.0.0.1:{double.port}/elsewhere\r\n"
                connection.sendall(f"HTTP/1.1 {status} \r\n{where}\r\n".encode())

    return act


def broker(double, connection):
    """Takes what is published, as far as MQTT 3.1.1 is needed for that."""
    with connection.makefile("rb") as file:
        while kind := file.read(1):
            length = shift = 0
            while (digit := file.read(1)[0]) & 128:
                length, shift = length | (digit & 127) << shift, shift + 7
            packet = io.BytesIO(file.read(length | digit << shift))
            if kind[0] >> 4 == 1:  # CONNECT
                packet.seek(10)
                while text := _text(packet):
                    double.greeting.append(text)
                connection.sendall(b"\x20\x02\x00\x00")
            elif kind[0] >> 4 == 3:  # PUBLISH
                topic, retained = _text(packet), bool(kind[0] & 1)
                if kind[0] & 2:
                    connection.sendall(b"\x40\x02" + packet.read(2))
                payload = packet.read().decode()
                if topic.endswith("/available"):
                    double.heads.append((topic, retained, payload))
                else:
                    double.took(json.loads(payload), (topic, retained))
            elif kind[0] >> 4 == 12:  # PINGREQ
                connection.sendall(b"\xd0\x00")


def _text(packet):
    return packet.read(int.from_bytes(packet.read(2))).decode()


def saying(*answers):
    """Says these bytes, waits until the other side has gone, and takes nothing."""

    def act(double, connection):
        connection.recv(4096)
        for answer in answers:
            connection.sendall(answer)
        while connection.recv(4096):
            pass

    return act


def hanging_up(double, connection):
    connection.recv(4096)


def make_keys(folder):
    """Makes certificate.pem and key.pem in a folder, for this machine."""
    folder.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    command += ["-subj", "/CN=station", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


class Said:
    def __init__(self, capsys):
        self._capsys, self.text = capsys, ""

    def wait(self, text, seconds=5.0):
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, self.text
            time.sleep(0.02)
            self.text += self._capsys.readouterr().err
