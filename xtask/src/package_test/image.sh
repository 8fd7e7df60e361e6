# Packs the base system with the files of the test into a bootable initramfs.
# Arguments: the base system, a working directory, busybox, the init program, the archive, and the files for /root.
base=$1 tree=$2 busybox=$3 init=$4 archive=$5
shift 5

rm -rf "$tree"
mkdir -p "$tree/bin"
# Hard links suffice, because the base is only read. Files that the boot does not need would cost memory.
cp --archive --link "$base" "$tree/system"
cd "$tree/system"
rm -rf usr/share/locale usr/share/doc usr/share/info usr/share/man var/cache/* var/lib/apt/lists/* dev
mkdir -p dev var/cache/apt
cp "$@" root/

# No login on the console. A hard-linked file is replaced, never written to, because it is the base's file.
ln -sf /dev/null etc/systemd/system/getty.target
rm -f etc/hostname
echo stockade >etc/hostname
cat >etc/systemd/system/live.service <<'EOF'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/live.sh
Environment=HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
EOF
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sf ../live.service etc/systemd/system/multi-user.target.wants/live.service
ln -s sbin/init init

cd "$tree"
cp "$busybox" bin/busybox
printf '%s' "$init" >init
chmod 755 init
find . | cpio --create --quiet --format=newc --owner=0:0 >"$archive"
rm -rf "$tree"
