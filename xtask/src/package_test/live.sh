#!/bin/bash
# In a virtual machine that systemd has booted: installs the package, and tests its units. Prints a line for each result
# to the second serial port; the last line confirms that all tests ran.
set -euo pipefail
exec >/dev/ttyS1 2>&1
trap 'systemctl poweroff -ff' EXIT

fail() {
    echo "systemd: $*"
    systemctl --no-pager status 'stockade*' || true
    journalctl --no-pager -u 'stockade*' | tail -40
    exit 1
}
# Waits until a command succeeds, because the emulated processor is slow.
wait_until() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    fail "timed out: $*"
}
is() { [ "$2" = "$3" ] || fail "$1 is '$2' instead of '$3'"; }
property() { systemctl show --value --property "$2" "$1"; }
vmm_of() { stockade ps --json | tr -d ' \n' | sed -n "s/.*\"id\":\"$1\",\"pid\":\([0-9]*\).*/\1/p"; }
logged() { journalctl --sync && journalctl --no-pager -o cat -u "$1" | grep -q -- "$2"; }
has_exited() { [ ! -e "/proc/$1" ]; }
describe() {
    { echo '[jail]'; echo "id = '$1'"; echo "exec-file = '/usr/bin/stockade'"; cat; } >"/etc/stockade/jails/$1.toml"
}

dpkg --install /root/stockade.deb >/dev/null
is "the timer" "$(systemctl is-active stockade-gc.timer)" active
is "the host set-up" "$(systemctl is-active stockade-host-setup.service)" active
stockade doctor >/tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
grep -q '^good *template-namespace' /tmp/doctor || fail "doctor does not find the template namespace: $(cat /tmp/doctor)"
systemctl start stockade-gc.service
echo "installed: timer and host set-up are active, gc has run"

describe vm-1 <<'EOF'
cgroup = { "pids.max" = 16 }
ready = "run/vmm.sock"
grace = 20
arguments = ["probe", "args", "sleep-ms=1000", "listen=/run/vmm.sock", "sleep"]
EOF
systemctl start stockade@vm-1
[ -S /srv/jailer/stockade/vm-1/root/run/vmm.sock ] || fail "the service is started before its VMM is ready"
unit=$(property stockade@vm-1 ControlGroup) vmm=$(vmm_of vm-1)
is "the VMM's cgroup" "$(cat "/proc/$vmm/cgroup")" "0::$unit/vm-1"
is "the limit of the VMM's cgroup" "$(cat "/sys/fs/cgroup$unit/vm-1/pids.max")" 16
is "the number of the service's tasks" "$(property stockade@vm-1 TasksCurrent)" 2
wait_until logged stockade@vm-1 '"args"'
echo "a service is started when its VMM is ready, and its jail is in the service's cgroup"

kill -KILL "$(property stockade@vm-1 MainPID)"
wait_until has_exited "$vmm"
again() { [ "$(property stockade@vm-1 SubState)" = running ] && [ "$(vmm_of vm-1)" != "$vmm" ]; }
wait_until again
is "the VMM's cgroup" "$(cat "/proc/$(vmm_of vm-1)/cgroup")" "0::$unit/vm-1"
echo "if stockade is killed, its VMM is killed too, and the service restarts"

systemctl stop stockade@vm-1
is "the result of a stop" "$(property stockade@vm-1 Result)" success
is "the jails after the stop" "$(stockade ps --quiet)" ""
[ ! -e "/sys/fs/cgroup$unit" ] || fail "the service's cgroup remains"
[ ! -e /srv/jailer ] || fail "the base remains"
echo "a stop ends the VMM and leaves nothing"

describe vm-2 <<'EOF'
grace = 1
arguments = ["probe", "ignore=15", "sleep"]
EOF
systemctl start stockade@vm-2
wait_until vmm_of vm-2
vmm=$(vmm_of vm-2)
systemctl stop stockade@vm-2
has_exited "$vmm" || fail "a VMM that ignores SIGTERM still runs"
echo "a VMM that ignores SIGTERM is killed after the grace period"

describe vm-3 <<'EOF'
arguments = ["probe", "exit=0"]
EOF
systemctl start stockade@vm-3 || true
is_inactive() { [ "$(property stockade@vm-3 ActiveState)" = inactive ]; }
wait_until is_inactive
is "the result of an exit" "$(property stockade@vm-3 Result)" success
sed -i 's/exit=0/exit=7/' /etc/stockade/jails/vm-3.toml
systemctl start stockade@vm-3 || true
failed() { [ "$(property stockade@vm-3 ExecMainStatus)" = 7 ]; }
wait_until failed
restarted() { [ "$(property stockade@vm-3 NRestarts)" -gt 0 ]; }
wait_until restarted
systemctl stop stockade@vm-3
echo "the service has its VMM's exit code, and restarts after a failure"

echo 'cgrop = {}' >>/etc/stockade/jails/vm-3.toml
if systemctl start stockade@vm-3 2>/dev/null; then fail "an invalid jail file starts"; fi
wait_until logged stockade@vm-3 "vm-3.toml:5: unknown key .cgrop."
systemctl stop stockade@vm-3
echo "a mistake in a jail file is in the journal"

systemctl start stockade@vm-1
if dpkg --purge stockade >/tmp/output 2>&1; then fail "the package was removed despite a running jail"; fi
systemctl stop stockade@vm-1
rm /etc/stockade/jails/*.toml
dpkg --purge stockade >/tmp/output 2>&1 || fail "the package was not removed: $(cat /tmp/output)"
systemctl reset-failed
is "the units after the purge" "$(systemctl list-units --all --plain --no-legend 'stockade*' | grep -v 'system-stockade' || true)" ""
for left in /run/stockade /srv/jailer /etc/stockade /var/lib/stockade; do
    [ ! -e "$left" ] || fail "$left remains"
done
echo "purged: nothing remains"
echo "@done"
