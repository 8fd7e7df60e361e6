#!/bin/sh
# Boots a Linux kernel under QEMU in a jail, to a clean power-off: unprivileged, without a network, and with no
# file but QEMU's own, its firmware, the kernel, and an initramfs with busybox that is made here.
#
#     examples/qemu.sh KERNEL [FLAGS OF `stockade run`]
#
# As root on Debian for x86-64, with the packages qemu-system-x86, busybox-static and cpio. `cargo xtask qemu`
# fetches all that and a kernel, and calls this. STOCKADE is the command if it is not on the PATH, JAIL the
# jail's name.
set -eu

kernel=$1
shift
work=$(mktemp -d)
# An end by a signal is an end of the shell too, after stockade has cleared up.
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$work/root/bin"
cp "$(command -v busybox)" "$work/root/bin/busybox"
cat > "$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox echo "the guest is up: $(/bin/busybox uname -s -r -m)"
/bin/busybox poweroff -f
INIT
chmod 755 "$work/root/init"
(cd "$work/root" && printf '%s\n' bin bin/busybox init | cpio --create --quiet --format=newc --owner=0:0) \
    > "$work/initramfs"

# The libraries come along by themselves, and so does what QEMU opens only while it runs, its module that emulates
# processors and its firmware: stockade's profile of QEMU lists that (`stockade profiles qemu`).
"${STOCKADE:-stockade}" run --id "${JAIL:-qemu}" --exec-file /usr/bin/qemu-system-x86_64 \
    --new-pid-ns --new-net-ns "$@" \
    --place "$kernel=vmlinuz" --place "$work/initramfs=initramfs" \
    -- -accel tcg -M q35 -m 256 \
    -nodefaults -nic none -vga none -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initramfs -append 'console=ttyS0 quiet panic=-1'
