#!/bin/sh
# What is removed does not run on, and leaves no link to a unit that is gone. An upgrade stops nothing: the later
# version runs from the next start on, which is the operator's to choose.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ] && [ -z "$DPKG_ROOT" ]; then
    systemctl disable --now ctwatch.service ctwatch.socket || true
elif command -v systemctl > /dev/null; then
    systemctl --root="${DPKG_ROOT:-/}" disable ctwatch.service ctwatch.socket || true
fi
exit 0
