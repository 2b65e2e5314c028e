"""Robust standard streams: no command fails because of the encoding or the reader of its output."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, TextIO, cast

PROBE: Final = "σ│█" + 80 * "x"
"""A line with the characters and the length of table rows."""
CLOSED: Final = {errno.EPIPE, errno.ESHUTDOWN} | ({errno.EINVAL} if os.name == "nt" else set())
"""The error numbers of a stream without a reader."""


@contextmanager
def lenient_streams() -> Iterator[None]:
    """A context in which stdout and stderr accept any text.

    Characters that the encoding lacks are replaced. If the reader of a pipe exits, further text is dropped and the command
    continues. Afterwards the streams are restored.
    """
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream: TextIO | None = getattr(sys, name)
            if stream is not None:
                stack.enter_context(_replace_unknown_characters(stream))
                stack.enter_context(_replace_stream(name, LenientStream(stream)))
        yield


class LenientStream:
    """A text stream that drops further text after its reader has exited."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._closed:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for each in lines:
            self.write(each)

    def flush(self) -> None:
        if not self._closed:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Drop all further text; raise `error` unless the reader has exited."""
        self._closed = True
        # Otherwise Python's final flush of buffered text would fail with the same error.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if error.errno not in CLOSED:
            raise error


@contextmanager
def _replace_stream(name: str, stream: LenientStream) -> Iterator[None]:
    before = getattr(sys, name)
    setattr(sys, name, cast("TextIO", stream))
    try:
        yield
    finally:
        setattr(sys, name, before)


@contextmanager
def _replace_unknown_characters(stream: TextIO) -> Iterator[None]:
    """A context in which `stream` replaces characters that its encoding lacks."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    encoding, errors = stream.encoding, stream.errors
    try:
        PROBE.encode(encoding, "replace")
        usable = encoding
    except (UnicodeError, LookupError):
        # Some encodings, such as idna, reject table rows even with replacements.
        usable = "ascii"
    stream.reconfigure(encoding=usable, errors="replace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError, LookupError):
            stream.reconfigure(encoding=encoding, errors=errors)
