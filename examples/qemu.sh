#!/bin/sh
# Boots a Linux kernel under QEMU in a jail until it powers off. QEMU runs unprivileged and without a network. Its only
# files are its own, its firmware, the kernel, and an initramfs with busybox that this script creates.
#
#     examples/qemu.sh KERNEL [FLAGS OF `stockade run`]
#
# Needs root, and Debian for x86-64 with the packages qemu-system-x86, busybox-static and cpio. `cargo xtask qemu`
# installs them, downloads a kernel and runs this script. STOCKADE is the path of the command, by default from the
# PATH; JAIL is the jail's id.
set -eu

kernel=$1
shift
work=$(mktemp -d)
# On a signal the shell exits after stockade has removed the jail.
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

# stockade places the shared libraries, and the files of QEMU's profile (`stockade profiles qemu`): the module that
# emulates processors and the firmware, which QEMU opens at run time.
"${STOCKADE:-stockade}" run --id "${JAIL:-qemu}" --exec-file /usr/bin/qemu-system-x86_64 \
    --new-pid-ns --new-net-ns "$@" \
    --place "$kernel=vmlinuz" --place "$work/initramfs=initramfs" \
    -- -accel tcg -M q35 -m 256 \
    -nodefaults -nic none -vga none -display none -serial stdio -no-reboot \
    -kernel /vmlinuz -initrd /initramfs -append 'console=ttyS0 quiet panic=-1'
