# In its own mount namespace: mounts a file system in memory over the base system, and changes the root to it.
# Arguments: the base system, a mount point, the package, and the arguments of the shell inside.
base=$1 mount_point=$2 package=$3
shift 3

mount -t tmpfs -o mode=755 tmpfs "$mount_point"
mkdir "$mount_point/upper" "$mount_point/work" "$mount_point/root"
root=$mount_point/root
mount -t overlay -o "lowerdir=$base,upperdir=$mount_point/upper,workdir=$mount_point/work" overlay "$root"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
cp "$package" "$root/tmp/stockade.deb"

exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$root" sh -eu "$@"
