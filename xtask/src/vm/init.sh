#!/bin/busybox sh
# pivot_root refuses to leave the initial root, so the system moves to a tmpfs first.
set -e
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=755 system /new
/bin/busybox mv /system/* /new/
[ -e /new/bin ] || /bin/busybox cp -a /bin /new/
exec /bin/busybox switch_root /new /init
