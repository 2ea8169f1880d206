#!/usr/bin/env python3
import datetime
import html
import json
import urllib.parse

print("Content-Type: application/json\r\n\r")
found = {"at": str(datetime.datetime.now()), "text": html.escape("<a>"), "url": urllib.parse.quote("a b")}
print(json.dumps(found))
