"""The streams of the terminal, so that no command fails because of what stands at their other end."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, TextIO, cast

PROBE: Final = "σ│█" + 80 * "x"
"""Characters that tables hold, in a line as long as theirs."""
CLOSED: Final = {errno.EPIPE, errno.ESHUTDOWN} | ({errno.EINVAL} if os.name == "nt" else set())
"""How the system says that nobody reads any more."""


@contextmanager
def lenient_streams() -> Iterator[None]:
    """While inside, stdout and stderr take any text.

    A character that the encoding lacks is replaced. If the reader of a pipe leaves, the rest of the text goes
    nowhere and the command goes on. Nothing else changes, and the streams are as before afterwards.
    """
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream: TextIO | None = getattr(sys, name)
            if stream is not None:
                stack.enter_context(_replacing(stream))
                stack.enter_context(_installed(name, LenientStream(stream)))
        yield


class LenientStream:
    """A text stream that drops what nobody reads any more; all else is the stream's own."""

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
        """Send all further text nowhere; raise `error` unless it says that the reader has left."""
        self._closed = True
        # The text that the stream holds back would meet the same error when Python ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if error.errno not in CLOSED:
            raise error


@contextmanager
def _installed(name: str, stream: LenientStream) -> Iterator[None]:
    before = getattr(sys, name)
    setattr(sys, name, cast("TextIO", stream))
    try:
        yield
    finally:
        setattr(sys, name, before)


@contextmanager
def _replacing(stream: TextIO) -> Iterator[None]:
    """While inside, replace the characters that the encoding of `stream` lacks."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    encoding, errors = stream.encoding, stream.errors
    try:
        PROBE.encode(encoding, "replace")
        usable = encoding
    except (UnicodeError, LookupError):
        # An encoding of host names, say, that takes no line of a table even with replacements.
        usable = "ascii"
    stream.reconfigure(encoding=usable, errors="replace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError, LookupError):
            stream.reconfigure(encoding=encoding, errors=errors)
