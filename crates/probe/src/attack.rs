//! Repeated attacks, as by a compromised VMM or exec process, and their results.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use stockade_syscalls::attack::{self, Attempted};

use crate::errno;

/// The exit code of a program that has more privileges than the process that executed it.
pub(crate) const PRIVILEGED: u8 = 66;

/// The results of the attacks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Attacks {
    rounds: u64,
    processes: u64,
    /// The number of attempts by attack.
    tried: BTreeMap<String, u64>,
    /// The first success by attack.
    harm: BTreeMap<String, String>,
    /// The last errno by attack.
    refused: BTreeMap<String, String>,
}

impl Attacks {
    /// Attacks all reachable targets for this time.
    pub(crate) fn for_seconds(seconds: u64) -> Self {
        let mut attacks = Self::default();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            attacks.rounds += 1;
            attacks.record("", attack::on_host());
            attacks.on_processes();
            if rustix::process::getuid().is_root() {
                attacks.record("root-", attack::on_confinement());
                for directory in writable_directories() {
                    attacks.record("set-uid-", attack::on_set_uid(&directory));
                }
            } else {
                attacks.on_programs();
                mischief(attacks.rounds);
            }
        }
        attacks
    }

    fn record(&mut self, group: &str, attempts: Vec<Attempted>) {
        self.record_on("the host", group, attempts);
    }

    fn record_on(&mut self, target: &str, group: &str, attempts: Vec<Attempted>) {
        for (name, result) in attempts {
            let name = format!("{group}{name}");
            *self.tried.entry(name.clone()).or_default() += 1;
            match result {
                Ok(()) => {
                    let round = self.rounds;
                    self.harm.entry(name).or_insert_with(|| format!("round {round}, {target}"));
                }
                Err(errno) => {
                    self.refused.insert(name, errno::name_of(&errno.into()));
                }
            }
        }
    }

    /// Attacks every visible process except this one.
    fn on_processes(&mut self) {
        let me = own_pid();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if Some(pid) != me && !is_dead(pid) {
                self.processes += 1;
                let target = format!("process {pid}");
                self.record_on(&target, "process-", attack::on_process(pid));
            }
        }
    }

    /// Executes the set-uid programs that tests have planted.
    fn on_programs(&mut self) {
        for program in [c"/set-uid", c"/bin/set-uid", c"/capable", c"/share/set-uid"] {
            let result = match attack::exit_code_of(program, c"privileged") {
                Ok(Some(code)) if code == i32::from(PRIVILEGED) => Ok(()),
                Ok(_) => Err(rustix::io::Errno::PERM),
                Err(errno) => Err(errno),
            };
            self.record("", vec![("execute-set-uid", result)]);
        }
    }
}

/// The pid of this process in `/proc`, which may belong to another pid namespace.
fn own_pid() -> Option<i32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// Whether a process is a zombie or dead, and so has no memory to attack.
fn is_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

fn writable_directories() -> Vec<CString> {
    let existing = ["/", "/bin", "/run", "/share", "/ramfs"].iter().filter(|path| Path::new(path).is_dir());
    existing.filter_map(|path| CString::new(*path).ok()).collect()
}

/// Exchanges files that exec processes are about to execute and stockade is about to open. Each round uses another of
/// the methods that the owner of the tree has.
fn mischief(round: u64) {
    let target = "/bin/victim";
    let _ = fs::create_dir("/bin");
    let spare = "/bin/spare";
    let _ = fs::remove_file(spare);
    let created = match round % 6 {
        0 => fs::write(spare, "#!/proc/self/exe\n").map(drop),
        1 => symlink("/proc/self/exe", spare),
        2 => symlink("/proc/1/root/etc/passwd", spare),
        3 => fs::write(spare, "#!/bin/victim\n").map(drop),
        4 => fs::copy("/stockade-probe", spare).map(drop),
        _ => fs::write(spare, foreign_interpreter()).map(drop),
    };
    let executable = fs::Permissions::from_mode(0o755);
    let _ = created.and_then(|()| fs::set_permissions(spare, executable));
    let _ = fs::rename(spare, target);
    // A directory and a symbolic link alternate at one path.
    let _ = fs::create_dir("/trap").and_then(|()| fs::rename("/trap", "/trap-there"));
    let _ = symlink("/proc/1/root", "/trap").and_then(|()| fs::remove_file("/trap"));
    let _ = fs::remove_dir("/trap-there");
}

/// The smallest ELF program with the interpreter `/proc/self/exe`, the program of the executing process.
#[must_use]
pub fn foreign_interpreter() -> Vec<u8> {
    let path = b"/proc/self/exe\0";
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    // ET_DYN, this machine, EV_CURRENT, entry 0, program headers at 64.
    elf.extend(3_u16.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for field in [0_u64, 64, 0] {
        elf.extend(field.to_le_bytes());
    }
    // No flags; sizes of the headers; two program headers and no sections.
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let size = (64 + 2 * 56 + path.len()) as u64;
    let mut header = |kind: u32, offset: u64, length: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(5_u32.to_le_bytes());
        for field in [offset, offset, offset, length, length, 4096] {
            elf.extend(field.to_le_bytes());
        }
    };
    // PT_INTERP, then PT_LOAD of the whole file.
    header(3, 64 + 2 * 56, path.len() as u64);
    header(1, 0, size);
    elf.extend(path);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elf_program_ends_with_its_interpreter() {
        let elf = foreign_interpreter();
        let at = 64 + 2 * 56;
        assert_eq!(&elf[at..], b"/proc/self/exe\0");
        assert_eq!(elf.len(), at + 15);
    }
}
