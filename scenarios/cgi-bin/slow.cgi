#!/bin/sh
# Sleeps, then answers: /cgi-bin/slow.cgi?sleep=5 (at most 999 seconds; 1 when not told).
# A slow script is not a broken one: see what the server makes of it.

set -f # a * in the query is no file name
seconds=1
for pair in $(printf %s "$QUERY_STRING" | tr '&' ' '); do
    case $pair in
        sleep=[0-9] | sleep=[0-9][0-9] | sleep=[0-9][0-9][0-9]) seconds=${pair#sleep=} ;;
    esac
done

sleep "$seconds"

echo "Content-Type: text/plain; charset=utf-8"
echo
echo "Slept $seconds s."
