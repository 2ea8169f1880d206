#!/bin/sh
# Shows everything that the server tells a script: its environment, sorted.
# Try /cgi-bin/env.cgi/more/path?colour=blue and look for PATH_INFO and QUERY_STRING.
# Do not publish it: the environment may hold secrets.

echo "Content-Type: text/plain; charset=utf-8"
echo
env | LC_ALL=C sort
