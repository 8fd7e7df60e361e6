//! Whole lives: a jail made, started, waited for and removed.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use stockade_syscalls::call::Call;

use crate::child::{began, execute, now, pipe, reap, start};
use crate::floor::WayIn;
use crate::ground::Ground;
use crate::ways::{fresh_id, plain, removed, streams, with_cgroups};
use crate::{Done, text};

/// Lives one life in a way of this name, and returns how long it took, in microseconds.
pub(crate) fn live(ground: &Ground, way: &str) -> Done<f64> {
    let (tells, output) = pipe()?;
    let begin = now();
    match way {
        "floor" => bare(ground, output)?,
        "stockade-all" => ours(ground, output, |spec| with_cgroups(spec).netns(fresh_id()))?,
        "shell" => shell(ground, output, "life.sh", SCRIPT)?,
        "shell-all" => shell(ground, output, "life-all.sh", SCRIPT_WITH_ALL)?,
        "stockade" => ours(ground, output, |spec| spec)?,
        "stockade-netns" => ours(ground, output, |spec| spec.netns(fresh_id()))?,
        "stockade-cgroups" => ours(ground, output, with_cgroups)?,
        other => return Err(format!("no life is called {other}")),
    }
    let took = now() - begin;
    began(tells, true)?;
    Ok(took / 1000.0)
}

type Wish = fn(stockade::spec::JailBuilder) -> stockade::spec::JailBuilder;

fn ours(ground: &Ground, output: OwnedFd, wish: Wish) -> Done {
    let spec = wish(plain(ground)).build().map_err(text)?;
    let prepared = ground.store.prepare(&spec).map_err(text)?;
    removed(prepared.launch(streams(output)).map_err(text)?)
}

/// The device nodes of a jail.
const NODES: [(&str, u32, u32); 3] = [("dev/net/tun", 10, 200), ("dev/kvm", 10, 232), ("dev/urandom", 1, 9)];

/// The bare system calls of a life, without a receipt, a mark, a check or a way back: as C would have it that
/// never fails and is never killed.
fn bare(ground: &Ground, output: OwnedFd) -> Done {
    let root = ground.directory.join(fresh_id());
    let owner = (Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234)));
    let own = |name: &str| {
        rustix::fs::chownat(CWD, root.join(name), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(text)
    };
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&ground.vmm, root.join("vmm")).map_err(text)?;
    own("vmm")?;
    for folder in ["dev", "dev/net", "run"] {
        rustix::fs::mkdir(root.join(folder), Mode::RWXU).map_err(text)?;
        own(folder)?;
    }
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, root.join(name), FileType::CharacterDevice, mode, device).map_err(text)?;
        own(name)?;
    }
    own("")?;
    let child = start(WayIn::to(&root)?.calls(output, true))?;
    reap(&child)?;
    for (name, _, _) in NODES {
        fs::remove_file(root.join(name)).map_err(text)?;
    }
    fs::remove_file(root.join("vmm")).map_err(text)?;
    ["dev/net", "dev", "run", ""]
        .iter()
        .try_for_each(|folder| fs::remove_dir(root.join(folder)))
        .map_err(text)
}

/// What an operator would write.
const SCRIPT: &str = "set -e
mkdir -p $1/dev/net $1/run
cp $2 $1/vmm
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
mknod $1/dev/net/tun c 10 200
mknod $1/dev/kvm c 10 232
mknod $1/dev/urandom c 1 9
chown -R 1234:1234 $1
chmod 700 $1
ip netns add $id
echo 512 > $cpu/cpu.shares
for file in cpuset.cpus cpuset.mems; do echo 0 > $set/../$file; echo 0 > $set/$file; done
(echo 0 > $cpu/tasks; echo 0 > $set/tasks
 exec ip netns exec $id unshare --mount -- chroot --userspec=1234:1234 $1 /vmm)
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
    let words = [file.display().to_string(), root.display().to_string(), ground.vmm.display().to_string()];
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
