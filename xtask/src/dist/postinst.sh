#!/bin/sh
# The binary may load its programs for whoever runs it, so that the tools need no root; SECURITY.md says what that means.
# So only root and the members of a group can run it, unless the administrator has said who can (dpkg-statoverride).
set -e
binary=/usr/bin/netbcc
group=netbcc
power=cap_bpf,cap_perfmon=ep
# Triggered: setcap came after this package.
if [ "$1" = configure ] || [ "$1" = triggered ]; then
    if ! dpkg-statoverride --list "$binary" >/dev/null; then
        getent group "$group" >/dev/null || groupadd --system "$group"
        # Before setcap: a change of owner takes the capabilities away.
        chown "root:$group" "$binary"
        chmod 0750 "$binary"
    fi
    if ! command -v setcap >/dev/null; then
        echo "netbcc: no setcap here (package libcap2-bin), so only root can run the tools, until: setcap $power $binary"
    elif ! why=$(setcap "$power" "$binary" 2>&1); then
        echo "netbcc: only root can run the tools: setcap $power $binary: $why"
    fi
fi
