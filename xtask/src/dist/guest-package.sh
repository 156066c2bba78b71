# The package in a guest: installed, used by an ordinary user, removed. Prints as a test harness does.
# Every check is a function; those after it go on from where it left the guest. CHECKS and FILES come before this.
passed=0 failed=0 said=
# The shell would take its own programs of these names.
dpkg() { /usr/sbin/dpkg "$@"; }
query() { /usr/sbin/dpkg-query "$@"; }
mkdir -p /usr/local /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers
touch /usr/bin/of-somebody-else /var/lib/dpkg/available /var/lib/dpkg/info/passwd.list
# What groupadd leaves, so that /etc is as long before as after.
touch /etc/group- /etc/.pwd.lock
# dpkg believes that the package of groupadd is there, as on each Debian.
cat >/var/lib/dpkg/status <<END
Package: passwd
Status: install ok installed
Version: 1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: groupadd

END

# What there is, dpkg's own books left out, in which each call leaves its mark; and the books of groups, because the
# package's group stays, as Debian's packages leave theirs: files may belong to it.
files() {
    find / -xdev '(' -path /var/lib/dpkg -o -path /tmp -o -path '/etc/group*' -o -path '/etc/gshadow*' -o \
        -path /etc/.pwd.lock ')' -prune -o -exec stat -c '%A %u:%g %s %N' '{}' + | sort
}

# The shell does not stop at a command that succeeds after an exclamation mark.
never() {
    if "$@"; then
        echo "this should fail: $*"
        return 1
    fi
}

# Runs a tool as an ordinary user, makes a connection that is refused, and waits for its row.
row() {
    : >/tmp/rows
    su nobody -s /bin/sh -c "exec $1 -P 9" >/tmp/rows 2>&1 &
    tool=$! tries=0 port=9
    until grep -q "^PID" /tmp/rows || ! kill -0 $tool; do sleep 0.1; done
    nc -w 1 127.0.0.1 $port || true
    until grep -q "^[0-9]* *nc  *4  *127.0.0.1 *127.0.0.1 *$port *$" /tmp/rows || [ $tries = 100 ] || ! kill -0 $tool; do
        sleep 0.1
        tries=$((tries+1))
    done
    kill -TERM $tool || true
    ended=0
    wait $tool || ended=$?
    echo "exit code $ended"
    cat /tmp/rows
    [ $tries -lt 100 ] && [ $ended = 0 ]
}

installs_in_silence() {
    files >/tmp/before
    dpkg -i /package.deb >/tmp/told 2>&1 || { cat /tmp/told; false; }
    never grep -i -e warning -e error -e netbcc: /tmp/told
    [ "$(query -W netbcc)" = "netbcc	$VERSION" ]
    dpkg --verify netbcc >/tmp/changed
    [ ! -s /tmp/changed ]
}

every_file_is_whole() {
    for tool in $TOOLS; do
        [ -x /usr/lib/netbcc/bin/$tool ]
        [ -s /usr/lib/netbcc/share/man/man8/$tool.8.gz ]
    done
    gzip -t /usr/share/man/man8/*.gz /usr/share/doc/netbcc/*.gz
    [ "$(netbcc --version)" = "netbcc $VERSION" ]
}

only_the_group_runs_it() {
    [ "$(stat -c '%A %U:%G' /usr/bin/netbcc)" = "-rwxr-x--- root:netbcc" ]
    never su nobody -s /bin/sh -c "netbcc --version"
    sed -i 's/^netbcc:.*/&nobody/' /etc/group
    su nobody -s /bin/sh -c "netbcc --version"
}

a_member_of_the_group_sees_a_row() {
    row /usr/lib/netbcc/bin/tcpconnect
}

over_itself_it_keeps_its_power_and_its_group() {
    dpkg -i /package.deb
    row "netbcc tcpconnect"
    # Who may run it is the administrator's choice, which outlives the package.
    dpkg-statoverride --update --add root root 0755 /usr/bin/netbcc
    dpkg -i /package.deb
    [ "$(stat -c '%A %U:%G' /usr/bin/netbcc)" = "-rwxr-xr-x root:root" ]
    row "netbcc tcpconnect"
    dpkg-statoverride --remove /usr/bin/netbcc
    dpkg -i /package.deb
    [ "$(stat -c '%A %U:%G' /usr/bin/netbcc)" = "-rwxr-x--- root:netbcc" ]
}

is_removed_without_a_trace() {
    dpkg -r netbcc
    files >/tmp/after
    diff /tmp/before /tmp/after
    grep -q '^netbcc:' /etc/group
    never query -W netbcc
    never ls /var/lib/dpkg/info/netbcc.list
    never grep -q netbcc /var/lib/dpkg/status
    never grep -r netbcc /var/lib/dpkg/triggers
}

without_setcap_it_says_so() {
    mv /usr/sbin/setcap /usr/sbin/setcap.away
    dpkg -i /package.deb >/tmp/told 2>&1
    mv /usr/sbin/setcap.away /usr/sbin/setcap
    grep "^netbcc: no setcap here (package libcap2-bin)" /tmp/told
    never row '/usr/bin/netbcc tcpconnect'
    grep "CAP_BPF" /tmp/rows
    # What dpkg does when the package with setcap comes.
    /usr/sbin/dpkg-trigger --by-package=libcap2-bin /sbin/setcap
    dpkg --triggers-only --pending
    row '/usr/bin/netbcc tcpconnect'
    dpkg -r netbcc
}

the_tarball_works_below_any_prefix() {
    mkdir /usr/local/any
    # Not GNU's: what a small system has.
    busybox tar -xzf /package.tar.gz --strip-components=1 -C /usr/local/any
    PATH=/usr/local/any/lib/netbcc/bin:$PATH
    tcplife --help | grep "^Usage: tcplife"
    rm -r /usr/local/any
}

for check in $CHECKS; do
    # Not as a condition: the shell would then go on after an error in it.
    (set -e; $check) >/tmp/said 2>&1
    if [ $? = 0 ]; then
        echo "test package::$check ... ok"
        passed=$((passed+1))
    else
        echo "test package::$check ... FAILED"
        failed=$((failed+1))
        said="$said
---- package::$check ----
$(cat /tmp/said)"
    fi
done
[ -z "$said" ] || echo "
failures:
$said
"
echo "test result: $passed passed; $failed failed; 0 ignored; 0 measured"
[ $failed = 0 ]
