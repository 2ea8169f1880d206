#!/usr/bin/env python3
"""A form: GET shows it, POST answers with what was typed.

The cgi module left Python in 3.13; for a plain form the standard library still has all it takes.
"""

import html
import os
import sys
from urllib.parse import parse_qsl

MOST = 64 * 1024  # bytes: a form is small, so do not read whatever is sent

FORM = """<form method="post">
  <p><label>Your name <input name="name" required></label></p>
  <p><label>Your message <textarea name="message"></textarea></label></p>
  <p><button>Send</button></p>
</form>"""


def respond(body: str, status: str = "200 OK") -> None:
    """Write the headers, an empty line and a small page around ``body``."""
    print(f"Status: {status}\nContent-Type: text/html; charset=utf-8\n")
    print(f"<!doctype html>\n<title>Form</title>\n{body}")


def fields(length: int) -> list[tuple[str, str]]:
    """Read the posted fields: exactly ``length`` bytes, the server need not close the input."""
    body = sys.stdin.buffer.read(length)
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


def main() -> None:
    """Answer one request."""
    sys.stdout.reconfigure(encoding="utf-8")
    method = os.environ.get("REQUEST_METHOD", "GET")
    kind = os.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    length = os.environ.get("CONTENT_LENGTH") or "0"
    if method in ("GET", "HEAD"):
        respond(FORM)
    elif method != "POST":
        respond("<p>Use GET or POST.</p>", "405 Method Not Allowed")
    elif kind != "application/x-www-form-urlencoded":
        respond("<p>Send a form.</p>", "415 Unsupported Media Type")
    elif not (length.isascii() and length.isdigit()) or int(length) > MOST:
        respond("<p>That is too much.</p>", "413 Content Too Large")
    else:
        # html.escape: what a visitor typed is shown as text and never becomes part of the page.
        rows = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in fields(int(length)))
        respond(f"<dl>{''.join(rows)}</dl>\n{FORM}")


main()
