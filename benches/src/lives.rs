//! Whole lives: a jail made, started, waited for and removed.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::mount::UnmountFlags;
use stockade::spec::JailBuilder;
use stockade::{How, Placement};
use stockade_syscalls::call::Call;
use stockade_syscalls::namespace::new_network;

use crate::cgroups::Version;
use crate::child::{began, execute, now, pipe, reap, start};
use crate::floor::WayIn;
use crate::ground::Ground;
use crate::ways::{fresh_id, plain, removed, streams};
use crate::{Done, text};

/// Lives one life in a way of this name, and returns how long it took, in microseconds.
pub(crate) fn live(ground: &Ground, way: &str) -> Done<f64> {
    let (tells, output) = pipe()?;
    let begin = now();
    match way {
        "floor" => bare(ground, output)?,
        "floor-all" => bare_with_all(ground, output)?,
        "stockade" => ours(ground, output, &plain(ground))?,
        "stockade-bound" => ours(ground, output, &plain(ground).bind_executable(true))?,
        "stockade-all-bound" => {
            let spec = Version::find(1)?.wish(plain(ground)).netns(fresh_id());
            ours(ground, output, &spec.bind_executable(true))?;
        }
        "stockade-netns" => ours(ground, output, &plain(ground).netns(fresh_id()))?,
        "stockade-cgroups" => ours(ground, output, &Version::find(1)?.wish(plain(ground)))?,
        "stockade-all" => ours(ground, output, &Version::find(1)?.wish(plain(ground)).netns(fresh_id()))?,
        "shell" => shell(ground, output, "life.sh", SCRIPT)?,
        "shell-all" => shell(ground, output, "life-all.sh", SCRIPT_WITH_ALL)?,
        other => return Err(format!("no life is called {other}")),
    }
    let took = now() - begin;
    began(tells, true)?;
    Ok(took / 1000.0)
}

fn ours(ground: &Ground, output: OwnedFd, spec: &JailBuilder) -> Done {
    let mut prepared = ground.store.create(&spec.build().map_err(text)?).map_err(text)?;
    for image in &ground.images {
        prepared.place(Placement::new(image).how(How::Link)).map_err(text)?;
    }
    removed(prepared.launch(streams(output)).map_err(text)?)
}

/// The device nodes of a jail.
const NODES: [(&str, u32, u32); 3] = [("dev/net/tun", 10, 200), ("dev/kvm", 10, 232), ("dev/urandom", 1, 9)];

/// The directories of a jail, the deepest last.
const FOLDERS: [&str; 3] = ["dev", "dev/net", "run"];

/// The bare system calls of a life, without a receipt, a mark, a check or a way back: as C would have it that
/// never fails and is never killed.
fn bare(ground: &Ground, output: OwnedFd) -> Done {
    let root = bare_root(ground)?;
    reap(&start(WayIn::to(&root)?.calls(output))?)?;
    remove_bare(ground, &root)
}

/// The same with a named network namespace and three cgroup settings.
fn bare_with_all(ground: &Ground, output: OwnedFd) -> Done {
    let root = bare_root(ground)?;
    let id = fresh_id();
    let netns = new_network().map_err(text)?;
    let named = Path::new("/run/netns").join(&id);
    fs::create_dir_all("/run/netns").map_err(text)?;
    fs::File::create_new(&named).map_err(text)?;
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", netns.as_raw_fd()), &named).map_err(text)?;
    let cgroups = Version::find(1)?.make(&id)?;
    let mut first = vec![Call::JoinNetwork(netns)];
    first.extend(cgroups.joins()?);
    reap(&start(WayIn::to(&root)?.after(first).calls(output))?)?;
    cgroups.remove()?;
    rustix::mount::unmount(&named, UnmountFlags::DETACH).map_err(text)?;
    fs::remove_file(&named).map_err(text)?;
    remove_bare(ground, &root)
}

fn bare_root(ground: &Ground) -> Done<PathBuf> {
    let root = ground.directory.join(fresh_id());
    let owner = (Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234)));
    let own = |name: &str| {
        rustix::fs::chownat(CWD, root.join(name), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(text)
    };
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&ground.vmm, root.join("vmm")).map_err(text)?;
    own("vmm")?;
    for folder in FOLDERS {
        rustix::fs::mkdir(root.join(folder), Mode::RWXU).map_err(text)?;
        own(folder)?;
    }
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, root.join(name), FileType::CharacterDevice, mode, device).map_err(text)?;
        own(name)?;
    }
    for image in &ground.images {
        fs::hard_link(image, root.join(image.file_name().unwrap_or_default())).map_err(text)?;
    }
    own("")?;
    Ok(root)
}

fn remove_bare(ground: &Ground, root: &Path) -> Done {
    let images = ground.images.iter().filter_map(|image| image.file_name()).map(Path::new);
    let nodes = NODES.iter().map(|(name, _, _)| Path::new(*name));
    nodes
        .chain(images)
        .chain([Path::new("vmm")])
        .try_for_each(|name| fs::remove_file(root.join(name)))
        .map_err(text)?;
    let folders = FOLDERS.iter().rev().map(|folder| root.join(folder)).chain([root.to_owned()]);
    folders.into_iter().try_for_each(fs::remove_dir).map_err(text)
}

/// What an operator would write.
const SCRIPT: &str = "set -e
mkdir -p $1/dev/net $1/run
cp $2 $1/vmm
ln $3 $1/vmlinux
ln $4 $1/rootfs.img
mknod $1/dev/net/tun c 10 200
mknod $1/dev/kvm c 10 232
mknod $1/dev/urandom c 1 9
chown -R 1234:1234 $1
chmod 700 $1
unshare --mount -- chroot --userspec=1234:1234 $1 /vmm
rm -rf $1";

/// The same with a network namespace and three cgroup settings.
const SCRIPT_WITH_ALL: &str = "set -e
id=$(basename $1)
cpu=/sys/fs/cgroup/cpu/stockade-bench/$id
set=/sys/fs/cgroup/cpuset/stockade-bench/$id
mkdir -p $1/dev/net $1/run $cpu $set
cp $2 $1/vmm
ln $3 $1/vmlinux
ln $4 $1/rootfs.img
mknod $1/dev/net/tun c 10 200
mknod $1/dev/kvm c 10 232
mknod $1/dev/urandom c 1 9
chown -R 1234:1234 $1
chmod 700 $1
ip netns add $id
echo 512 > $cpu/cpu.shares
for file in cpuset.cpus cpuset.mems; do echo 0 > $set/../$file; echo 0 > $set/$file; done
cpu=$cpu set=$set id=$id root=$1 sh -c 'echo $$ > $cpu/cgroup.procs; echo $$ > $set/cgroup.procs
 exec ip netns exec $id unshare --mount -- chroot --userspec=1234:1234 $root /vmm'
ip netns del $id
rmdir $cpu $set
rm -rf $1";

fn shell(ground: &Ground, output: OwnedFd, name: &str, script: &str) -> Done {
    let root = ground.directory.join(fresh_id());
    let file = ground.directory.join(name);
    if !file.exists() {
        let path = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n";
        fs::write(&file, format!("{path}{script}")).map_err(text)?;
    }
    let [kernel, image] = &ground.images;
    let words = [&file, &root, &ground.vmm, kernel, image].map(|path| path.display().to_string());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    reap(&start(vec![Call::Redirect([None, Some(output), None]), execute(Path::new("/bin/sh"), &words)])?)
}

/// So many lives one after the other in each of two threads; returns how many lives a second that is.
pub(crate) fn throughput(ground: &Ground, way: &str, lives: u32) -> Done<f64> {
    let left = AtomicU32::new(lives);
    let begin = now();
    let one_after_the_other = || -> Done {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            live(ground, way)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(one_after_the_other));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    Ok(f64::from(lives) * 1e9 / (now() - begin))
}
