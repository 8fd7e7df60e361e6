#!/bin/busybox sh
# The machine's only process besides the tests. It sets up the mounts and the network of a host, runs each test of the
# list in its own process, and prints each result to the second serial port.
set -e
export PATH=/bin HOME=/ STOCKADE_VM=1 CI=true RUST_BACKTRACE=0
/bin/busybox --install -s /bin

mkdir -p /proc /sys /dev /tmp /var/tmp /run /etc
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 tmp /var/tmp
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo root:x:0:0:root:/:/bin/sh >/etc/passwd
hostname stockade-vm
[ ! -e /loop.ko ] || insmod /loop.ko
ip link set lo up

if [ -n "$STOCKADE_SHELL" ]; then
    echo "The tests are in /target/deps, their names in /tests. exit, or ctrl-a x, ends the machine."
    setsid cttyhack sh || true
    poweroff -f
fi

set +e
stty -F /dev/ttyS1 raw -echo
while read -r suite test; do
    echo "@begin $suite::$test"
    # A time limit, so that a test that hangs does not prevent the results of later tests.
    timeout -s KILL 100 "/target/deps/$suite" --exact "$test" --include-ignored --test-threads=1 </dev/null
    code=$?
    # The test's output may end without a newline.
    printf '\n@end %s\n' "$code"
done </tests >/dev/ttyS1 2>&1
echo "@done" >/dev/ttyS1
poweroff -f
