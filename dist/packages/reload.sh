#!/bin/sh
# systemd learns that units came or went. They stay disabled, and nothing is started: that is the operator's to do.
# Recordings in /var/lib/ctwatch are the operator's too: no removal, and no purge, deletes them.
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
exit 0
