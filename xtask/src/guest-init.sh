#!/bin/busybox sh
# The first process of a test guest: mounts what netbcc needs, runs /command (or a shell), powers off.
# Few processes on purpose: starting one takes a tenth of a second on an emulated processor.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/bin HOME=/root
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm /dev/net
mount -a
cp -d /etc/dev/* /dev/
mknod /dev/net/tun c 10 200
echo guest >/proc/sys/kernel/hostname
ip link set lo up
[ -x /bin/netbcc ] && netbcc install-links /bin >/dev/null

if [ -e /command ]; then
    # Output goes over a port of its own, untouched by the terminal layer and by kernel messages. Which one it is, the
    # kernel's command line says.
    stty -F "$output" raw -echo
    sh /command </dev/null >"$output" 2>&1
    echo "guest: exit code $?;"
else
    echo "netbcc guest, kernel $(uname -r). Ctrl-D ends it, Ctrl-A X kills it."
    setsid cttyhack sh -l
    echo "guest: exit code $?;"
fi
poweroff -f
