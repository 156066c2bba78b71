#!/bin/sh
# The binary may load its programs for whoever runs it, so that the tools need no root; SECURITY.md says what that means.
set -e
binary=/usr/bin/netbcc
power=cap_bpf,cap_perfmon=ep
# Triggered: setcap came after this package.
if [ "$1" = configure ] || [ "$1" = triggered ]; then
    if ! command -v setcap >/dev/null; then
        echo "netbcc: no setcap here (package libcap2-bin), so only root can run the tools, until: setcap $power $binary"
    elif ! why=$(setcap "$power" "$binary" 2>&1); then
        echo "netbcc: only root can run the tools: setcap $power $binary: $why"
    fi
fi
