#!/bin/bash
# In a machine that systemd has booted: installs the package, and has systemd run its units. What is found goes to the
# second serial port, a line for each; the last one says that all was.
set -euo pipefail
exec >/dev/ttyS1 2>&1
trap 'systemctl poweroff -ff' EXIT

fail() {
    echo "systemd: $*"
    systemctl --no-pager status 'stockade*' || true
    journalctl --no-pager -u 'stockade*' | tail -40
    exit 1
}
# Waits until a command succeeds: the machine's processor is slow.
until_so() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    fail "never came true: $*"
}
is() { [ "$2" = "$3" ] || fail "$1 is '$2' and not '$3'"; }
property() { systemctl show --value --property "$2" "$1"; }
vmm_of() { stockade ps --json | tr -d ' \n' | sed -n "s/.*\"id\":\"$1\",\"pid\":\([0-9]*\).*/\1/p"; }
said() { journalctl --sync && journalctl --no-pager -o cat -u "$1" | grep -q -- "$2"; }
gone() { [ ! -e "/proc/$1" ]; }
describe() {
    { echo '[jail]'; echo "id = '$1'"; echo "exec-file = '/usr/bin/stockade'"; cat; } >"/etc/stockade/jails/$1.toml"
}

dpkg --install /root/stockade.deb >/dev/null
is "the timer" "$(systemctl is-active stockade-gc.timer)" active
is "the host's set-up" "$(systemctl is-active stockade-host-setup.service)" active
stockade doctor >/tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
grep -q '^good *skeleton' /tmp/doctor || fail "doctor does not see the skeleton: $(cat /tmp/doctor)"
systemctl start stockade-gc.service
echo "installed: timer and set-up are active, gc has run"

describe vm-1 <<'EOF'
cgroup = { "pids.max" = 16 }
ready = "run/vmm.sock"
grace = 20
arguments = ["probe", "args", "sleep-ms=1000", "listen=/run/vmm.sock", "sleep"]
EOF
systemctl start stockade@vm-1
[ -S /srv/jailer/stockade/vm-1/root/run/vmm.sock ] || fail "is started before its VMM is ready"
unit=$(property stockade@vm-1 ControlGroup) vmm=$(vmm_of vm-1)
is "the VMM's cgroup" "$(cat "/proc/$vmm/cgroup")" "0::$unit/vm-1"
is "its limit" "$(cat "/sys/fs/cgroup$unit/vm-1/pids.max")" 16
is "what the service counts" "$(property stockade@vm-1 TasksCurrent)" 2
until_so said stockade@vm-1 '"args"'
echo "a service is started when its VMM is ready, and its jail is in the service's cgroup"

kill -KILL "$(property stockade@vm-1 MainPID)"
until_so gone "$vmm"
again() { [ "$(property stockade@vm-1 SubState)" = running ] && [ "$(vmm_of vm-1)" != "$vmm" ]; }
until_so again
is "the VMM's cgroup" "$(cat "/proc/$(vmm_of vm-1)/cgroup")" "0::$unit/vm-1"
echo "a stockade that is killed takes its VMM along, and is started again"

systemctl stop stockade@vm-1
is "the result of a stop" "$(property stockade@vm-1 Result)" success
is "the jails after it" "$(stockade ps --quiet)" ""
[ ! -e "/sys/fs/cgroup$unit" ] || fail "the service's cgroup is left"
[ ! -e /srv/jailer ] || fail "the base is left"
echo "a stop ends the VMM and leaves nothing"

describe vm-2 <<'EOF'
grace = 1
arguments = ["probe", "ignore=15", "sleep"]
EOF
systemctl start stockade@vm-2
until_so vmm_of vm-2
vmm=$(vmm_of vm-2)
systemctl stop stockade@vm-2
gone "$vmm" || fail "a VMM that ignores SIGTERM lives"
echo "a stubborn VMM is killed when its grace is over"

describe vm-3 <<'EOF'
arguments = ["probe", "exit=0"]
EOF
systemctl start stockade@vm-3 || true
ended() { [ "$(property stockade@vm-3 ActiveState)" = inactive ]; }
until_so ended
is "the result of an end" "$(property stockade@vm-3 Result)" success
sed -i 's/exit=0/exit=7/' /etc/stockade/jails/vm-3.toml
systemctl start stockade@vm-3 || true
failed() { [ "$(property stockade@vm-3 ExecMainStatus)" = 7 ]; }
until_so failed
restarted() { [ "$(property stockade@vm-3 NRestarts)" -gt 0 ]; }
until_so restarted
systemctl stop stockade@vm-3
echo "a VMM's exit code is the service's, and one that fails is started again"

echo 'cgrop = {}' >>/etc/stockade/jails/vm-3.toml
if systemctl start stockade@vm-3 2>/dev/null; then fail "a wrong jail file starts"; fi
until_so said stockade@vm-3 "vm-3.toml:5: unknown key .cgrop."
systemctl stop stockade@vm-3
echo "a mistake in a jail file is in the journal"

systemctl start stockade@vm-1
if dpkg --purge stockade >/tmp/said 2>&1; then fail "was removed while a jail runs"; fi
systemctl stop stockade@vm-1
rm /etc/stockade/jails/*.toml
dpkg --purge stockade >/tmp/said 2>&1 || fail "is not removed: $(cat /tmp/said)"
systemctl reset-failed
is "the units after the purge" "$(systemctl list-units --all --plain --no-legend 'stockade*' | grep -v 'system-stockade' || true)" ""
for left in /run/stockade /srv/jailer /etc/stockade /var/lib/stockade; do
    [ ! -e "$left" ] || fail "$left is left"
done
echo "purged: nothing is left"
echo "@done"
