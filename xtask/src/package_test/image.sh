# Packs the base system into an initramfs that boots it, with what is to be tried in it.
# Arguments: the base system, a directory to work in, busybox, the first program, the archive, and what goes to /root.
base=$1 tree=$2 busybox=$3 init=$4 archive=$5
shift 5

rm -rf "$tree"
mkdir -p "$tree/bin"
# By links: it is only read from. What is not needed to boot would only cost memory.
cp --archive --link "$base" "$tree/system"
cd "$tree/system"
rm -rf usr/share/locale usr/share/doc usr/share/info usr/share/man var/cache/* var/lib/apt/lists/* dev
mkdir -p dev var/cache/apt
cp "$@" root/

# On a console that nobody looks at nobody logs in; a file that is a link to another's is replaced, not written to.
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
