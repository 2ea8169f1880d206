#!/bin/sh
# Answers after 1 s: a request that is under way while something is killed.
sleep 1
printf 'Content-Type: text/plain\r\n\r\nslow\n'
