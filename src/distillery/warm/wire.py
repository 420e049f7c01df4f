"""Messages between a job's command and the server: JSON behind its length, handles beside it."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
_LARGEST = 1 << 26  # bytes; a specification takes a few thousand
_HANDLES = 8


def send(connection: socket.socket, message: Any, handles: tuple[int, ...] = ()) -> None:
    """Send a JSON value, and open files with it."""
    text = json.dumps(message).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(text))], handles)
    connection.sendall(text)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """The next message and the files that came with it; None when the other end is gone.

    Raises:
        ValueError: what came is no message.
        OSError: the connection fails or, where it has a time-out, waits too long.
    """
    start, handles, _, _ = socket.recv_fds(connection, _LENGTH.size, _HANDLES)
    try:
        start += _read(connection, _LENGTH.size - len(start)) if start else b""
        if len(start) < _LENGTH.size:
            raise EOFError
        (length,) = _LENGTH.unpack(start)
        if length > _LARGEST:
            raise ValueError(f"a message of {length} bytes")
        text = _read(connection, length)
        if len(text) < length:
            raise EOFError
        return json.loads(text), handles
    except BaseException as error:
        for handle in handles:
            os.close(handle)
        if isinstance(error, (EOFError, ConnectionError)):
            return None, []
        raise


def _read(connection: socket.socket, length: int) -> bytes:
    """So many bytes, or fewer where the other end is gone before."""
    parts: list[bytes] = []
    while length > 0 and (part := connection.recv(min(length, 1 << 16))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
