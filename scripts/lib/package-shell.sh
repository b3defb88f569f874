#!/bin/bash
# The shell for programs on the second serial line of scripts/package-image's machine: each line is a
# command; no prompt, no echo, LF as the line end. Before, one line says that the machine is up.

stty -echo -onlcr
trap : INT
read -r uptime _ </proc/uptime
echo "READY package $uptime"
while IFS= read -r line || (($? > 128)); do
    eval "$line"
    line=
done
