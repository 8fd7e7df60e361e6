//! Whole lives: creation, start, exit and removal of a jail.

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
use crate::floor::FloorEntry;
use crate::setup::Setup;
use crate::ways::{fresh_id, plain, removed, streams};
use crate::{Done, text};

/// Runs one life by a method, and returns its time in microseconds.
pub(crate) fn live(setup: &Setup, way: &str) -> Done<f64> {
    let (input, output) = pipe()?;
    let begin = now();
    match way {
        "floor" => bare(setup, output)?,
        "floor-all" => bare_with_all(setup, output)?,
        "stockade" => stockade(setup, output, &plain(setup))?,
        "stockade-bound" => stockade(setup, output, &plain(setup).bind_executable(true))?,
        "stockade-all-bound" => {
            let spec = Version::find(1)?.add_to(plain(setup)).netns(fresh_id());
            stockade(setup, output, &spec.bind_executable(true))?;
        }
        "stockade-netns" => stockade(setup, output, &plain(setup).netns(fresh_id()))?,
        "stockade-cgroups" => stockade(setup, output, &Version::find(1)?.add_to(plain(setup)))?,
        "stockade-all" => stockade(setup, output, &Version::find(1)?.add_to(plain(setup)).netns(fresh_id()))?,
        "shell" => shell(setup, output, "life.sh", SCRIPT)?,
        "shell-all" => shell(setup, output, "life-all.sh", SCRIPT_WITH_ALL)?,
        other => return Err(format!("unknown life '{other}'")),
    }
    let took = now() - begin;
    began(input, true)?;
    Ok(took / 1000.0)
}

fn stockade(setup: &Setup, output: OwnedFd, spec: &JailBuilder) -> Done {
    let mut created = setup.store.create(&spec.build().map_err(text)?).map_err(text)?;
    for image in &setup.images {
        created.place(Placement::new(image).how(How::Link)).map_err(text)?;
    }
    removed(created.launch(streams(output)).map_err(text)?)
}

/// The device nodes of a jail.
const NODES: [(&str, u32, u32); 3] = [("dev/net/tun", 10, 200), ("dev/kvm", 10, 232), ("dev/urandom", 1, 9)];

/// The directories of a jail, parents first.
const DIRECTORIES: [&str; 3] = ["dev", "dev/net", "run"];

/// Runs a life with bare system calls, without receipt, nonce, checks or undo: it relies on never failing and never
/// being killed.
fn bare(setup: &Setup, output: OwnedFd) -> Done {
    let root = bare_root(setup)?;
    reap(&start(FloorEntry::to(&root)?.calls(output))?)?;
    remove_bare(setup, &root)
}

/// Runs a life with bare system calls, a named network namespace and three cgroup settings.
fn bare_with_all(setup: &Setup, output: OwnedFd) -> Done {
    let root = bare_root(setup)?;
    let id = fresh_id();
    let netns = new_network().map_err(text)?;
    let named = Path::new("/run/netns").join(&id);
    fs::create_dir_all("/run/netns").map_err(text)?;
    fs::File::create_new(&named).map_err(text)?;
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", netns.as_raw_fd()), &named).map_err(text)?;
    let cgroups = Version::find(1)?.create(&id)?;
    let mut first = vec![Call::JoinNetwork(netns)];
    first.extend(cgroups.joins()?);
    reap(&start(FloorEntry::to(&root)?.after(first).calls(output))?)?;
    cgroups.remove()?;
    rustix::mount::unmount(&named, UnmountFlags::DETACH).map_err(text)?;
    fs::remove_file(&named).map_err(text)?;
    remove_bare(setup, &root)
}

fn bare_root(setup: &Setup) -> Done<PathBuf> {
    let root = setup.directory.join(fresh_id());
    let owner = (Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234)));
    let own = |name: &str| {
        rustix::fs::chownat(CWD, root.join(name), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(text)
    };
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&setup.vmm, root.join("vmm")).map_err(text)?;
    own("vmm")?;
    for directory in DIRECTORIES {
        rustix::fs::mkdir(root.join(directory), Mode::RWXU).map_err(text)?;
        own(directory)?;
    }
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, root.join(name), FileType::CharacterDevice, mode, device).map_err(text)?;
        own(name)?;
    }
    for image in &setup.images {
        fs::hard_link(image, root.join(image.file_name().unwrap_or_default())).map_err(text)?;
    }
    own("")?;
    Ok(root)
}

fn remove_bare(setup: &Setup, root: &Path) -> Done {
    let images = setup.images.iter().filter_map(|image| image.file_name()).map(Path::new);
    let nodes = NODES.iter().map(|(name, _, _)| Path::new(*name));
    nodes
        .chain(images)
        .chain([Path::new("vmm")])
        .try_for_each(|name| fs::remove_file(root.join(name)))
        .map_err(text)?;
    let directories = DIRECTORIES.iter().rev().map(|name| root.join(name)).chain([root.to_owned()]);
    directories.into_iter().try_for_each(fs::remove_dir).map_err(text)
}

/// The script of an operator.
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

/// The script with a network namespace and three cgroup settings.
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

fn shell(setup: &Setup, output: OwnedFd, name: &str, script: &str) -> Done {
    let root = setup.directory.join(fresh_id());
    let file = setup.directory.join(name);
    if !file.exists() {
        let path = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n";
        fs::write(&file, format!("{path}{script}")).map_err(text)?;
    }
    let [kernel, image] = &setup.images;
    let arguments = [&file, &root, &setup.vmm, kernel, image].map(|path| path.display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    reap(&start(vec![Call::Redirect([None, Some(output), None]), execute(Path::new("/bin/sh"), &arguments)])?)
}

/// Runs lives in two threads, and returns the number of lives a second.
pub(crate) fn throughput(setup: &Setup, way: &str, lives: u32) -> Done<f64> {
    let left = AtomicU32::new(lives);
    let begin = now();
    let run = || -> Done {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            live(setup, way)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(run));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    Ok(f64::from(lives) * 1e9 / (now() - begin))
}
