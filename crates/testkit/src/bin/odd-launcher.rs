//! Executes a program from a launcher in an odd state: `odd-launcher ODDITY... -- PROGRAM [ARGUMENT...]`.
//!
//! The oddities, which take effect in their order, are `umask=MODE`, `signals-blocked`, `signals-ignored`, `closed=N`
//! (a file descriptor), `descriptors=N` (the soft limit), `real-time`, `ambient` (capabilities), `no-ptrace`,
//! `user-namespace` and `parent-stopped`.

use std::ffi::CString;
use std::io;
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use stockade_syscalls::{launcher, state};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.splitn(2, |argument| argument == "--");
    let (oddities, program) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut closed = Vec::new();
    for oddity in oddities {
        let done = match oddity.split_once('=') {
            // Last, since a failure is printed to one of these streams.
            Some(("closed", number)) => {
                number.parse().map(|number| closed.push(number)).map_err(io::Error::other)
            }
            _ => become_odd(oddity),
        };
        if let Err(error) = done {
            eprintln!("odd-launcher: {oddity}: {error}");
            return ExitCode::from(99);
        }
    }
    let program: Result<Vec<CString>, _> = program.iter().map(|word| CString::new(word.as_str())).collect();
    closed.into_iter().for_each(launcher::close);
    let error = program.map_or_else(io::Error::from, |program| state::execute(&program));
    eprintln!("odd-launcher: {error}");
    ExitCode::from(99)
}

fn become_odd(oddity: &str) -> io::Result<()> {
    match oddity.split_once('=').unwrap_or((oddity, "")) {
        ("umask", mode) => {
            let bits = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
            rustix::process::umask(Mode::from_bits_retain(bits));
        }
        ("descriptors", count) => {
            let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
            let current = Some(count.parse().map_err(io::Error::other)?);
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
        }
        ("signals-blocked", "") => launcher::block_all_signals(),
        ("signals-ignored", "") => launcher::ignore_all_signals(),
        ("real-time", "") => launcher::schedule_in_real_time()?,
        ("ambient", "") => launcher::make_capabilities_ambient()?,
        ("no-ptrace", "") => launcher::give_up(CapabilitySet::SYS_PTRACE)?,
        ("user-namespace", "") => launcher::enter_user_namespace()?,
        ("parent-stopped", "") => launcher::stop_parent()?,
        _ => return Err(io::Error::other("no such oddity")),
    }
    Ok(())
}
