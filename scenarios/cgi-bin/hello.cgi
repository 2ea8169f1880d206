#!/bin/sh
# The smallest CGI script: headers, one empty line, then the body.
# Open it as /cgi-bin/hello.cgi

echo "Content-Type: text/plain; charset=utf-8"
echo
echo "Hello from process $$ to ${REMOTE_ADDR:-an unknown visitor}."
