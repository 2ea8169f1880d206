#!/usr/bin/env python3
"""A CGI script in Python: answers with some of its variables as JSON."""

import json
import os
import sys

NAMES = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "SERVER_PROTOCOL")

answer = {"hello": "world", "python": sys.version.split()[0]}
answer.update({name: os.environ.get(name, "") for name in NAMES})

# Headers, one empty line, then the body.
print("Content-Type: application/json")
print()
print(json.dumps(answer, indent=2))
