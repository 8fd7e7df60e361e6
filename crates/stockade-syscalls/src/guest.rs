//! A KVM guest of eight bytes: it adds two numbers, writes the sum to a port and halts.
//!
//! It shows that the features of `/dev/kvm` that a VMM needs work: a machine, memory, a processor, exits to user
//! space.

use std::path::Path;
use std::{fmt, io};

/// The result of a guest that ran until it halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted {
    /// The sum that the guest wrote to the port.
    pub answer: u8,
}

/// The reason why the guest did not halt as expected.
#[derive(Debug)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest's code is for x86-64 only.
    WrongArchitecture,
    /// A step of the set-up or the run failed.
    Step {
        /// The operation, such as `open /dev/kvm`.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The kernel does not have version 12 of the KVM interface, the only version since 2007.
    ApiVersion(i32),
    /// The guest exited for a reason that its code cannot cause.
    Exit(String),
    /// The guest halted and wrote another value or nothing to the port.
    Answer(Option<u8>),
    /// The guest had more exits than its code can cause.
    Endless,
}

impl fmt::Display for GuestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongArchitecture => write!(out, "the guest is for x86-64"),
            Self::Step { what, source } => write!(out, "{what}: {source}"),
            Self::ApiVersion(version) => write!(out, "KVM API version {version} instead of 12"),
            Self::Exit(reason) => write!(out, "unexpected exit {reason}"),
            Self::Answer(Some(answer)) => write!(out, "the guest wrote {answer} to its port"),
            Self::Answer(None) => write!(out, "the guest halted without writing to its port"),
            Self::Endless => write!(out, "the guest did not halt"),
        }
    }
}

impl std::error::Error for GuestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Step { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Runs the guest on the KVM device at `kvm` until it halts.
///
/// # Errors
/// Returns an error if the device cannot be opened or used, or if the guest does not follow its code.
#[cfg(target_arch = "x86_64")]
pub fn run(kvm: &Path) -> Result<Halted, GuestError> {
    x86_64::run(kvm)
}

/// Runs the guest on the KVM device at `kvm` until it halts.
///
/// # Errors
/// Always returns `WrongArchitecture`: the guest's code is for x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub fn run(_kvm: &Path) -> Result<Halted, GuestError> {
    Err(GuestError::WrongArchitecture)
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{GuestError, Halted};
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
    use std::ffi::{CString, c_void};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr::NonNull;
    use std::{io, ptr};

    const API_VERSION: i32 = 12;
    /// The guest's only memory: one page, its code at the start.
    const MEMORY_SIZE: usize = 0x1000;
    const MEMORY_AT: u64 = 0x1000;
    /// Three pages that older Intel processors need for real mode; far from the guest's memory.
    const TASK_STATE_AT: usize = 0xfffb_d000;
    const PORT: u16 = 0x3f8;
    const TERMS: (u8, u8) = (2, 3);
    /// The code causes two exits; a signal may cause a few more.
    const MOST_EXITS: usize = 64;

    const CODE: [u8; 8] = [
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x00, 0xd8, // add al, bl
        0xee, // out dx, al
        0xf4, // hlt
        0xf4, // hlt
    ];

    pub(super) fn run(kvm: &Path) -> Result<Halted, GuestError> {
        let mut machine = Machine::new(kvm)?;
        run_until_halt(&mut machine.processor)
    }

    /// A machine with one processor and one page. The fields are dropped in this order: nothing that could
    /// run the guest is left when its memory goes.
    struct Machine {
        processor: VcpuFd,
        _vm: VmFd,
        _memory: Memory,
    }

    impl Machine {
        fn new(path: &Path) -> Result<Self, GuestError> {
            let kvm = open(path)?;
            let version = kvm.get_api_version();
            if version != API_VERSION {
                return Err(GuestError::ApiVersion(version));
            }
            let memory = Memory::new().map_err(|source| failed("map guest memory", source))?;
            let vm = kvm.create_vm().map_err(|error| failed("create a machine", error))?;
            vm.set_tss_address(TASK_STATE_AT).map_err(|error| failed("set the task state address", error))?;
            let region = kvm_userspace_memory_region {
                slot: 0,
                flags: 0,
                guest_phys_addr: MEMORY_AT,
                memory_size: MEMORY_SIZE as u64,
                userspace_addr: memory.address() as u64,
            };
            // SAFETY: the region is exactly the mapping that `memory` owns. The mapping outlives the machine: it is
            // dropped later, here on failure and in `Machine`. No reference to its bytes exists once the guest can
            // change them.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(|error| failed("give the machine its memory", error))?;
            let processor = vm.create_vcpu(0).map_err(|error| failed("create a processor", error))?;
            start_in_real_mode(&processor)?;
            Ok(Self { processor, _vm: vm, _memory: memory })
        }
    }

    fn open(path: &Path) -> Result<Kvm, GuestError> {
        let what = || format!("open {}", path.display());
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|error| GuestError::Step { what: what(), source: error.into() })?;
        Kvm::new_with_path(name).map_err(|error| GuestError::Step { what: what(), source: error.into() })
    }

    fn start_in_real_mode(processor: &VcpuFd) -> Result<(), GuestError> {
        let mut segments = processor.get_sregs().map_err(|error| failed("read the segments", error))?;
        segments.cs.base = 0;
        segments.cs.selector = 0;
        processor.set_sregs(&segments).map_err(|error| failed("set the segments", error))?;
        let mut registers = processor.get_regs().map_err(|error| failed("read the registers", error))?;
        registers.rip = MEMORY_AT;
        registers.rax = TERMS.0.into();
        registers.rbx = TERMS.1.into();
        // Bit 1 is always set; the others are clear: no interrupts, no single steps.
        registers.rflags = 2;
        processor.set_regs(&registers).map_err(|error| failed("set the registers", error))
    }

    fn run_until_halt(processor: &mut VcpuFd) -> Result<Halted, GuestError> {
        let mut answer = None;
        for _ in 0..MOST_EXITS {
            match processor.run() {
                Ok(VcpuExit::IoOut(PORT, [byte])) if answer.is_none() => answer = Some(*byte),
                Ok(VcpuExit::Hlt) => return checked(answer),
                Ok(VcpuExit::Intr) => {}
                Ok(exit) => return Err(GuestError::Exit(format!("{exit:?}"))),
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => return Err(failed("run the processor", error)),
            }
        }
        Err(GuestError::Endless)
    }

    fn checked(answer: Option<u8>) -> Result<Halted, GuestError> {
        match answer {
            Some(answer) if answer == TERMS.0 + TERMS.1 => Ok(Halted { answer }),
            other => Err(GuestError::Answer(other)),
        }
    }

    fn failed(what: &str, source: impl Into<io::Error>) -> GuestError {
        GuestError::Step { what: what.to_owned(), source: source.into() }
    }

    /// A mapping of [`MEMORY_SIZE`] bytes that begins with the guest's code.
    struct Memory(NonNull<c_void>);

    impl Memory {
        fn new() -> io::Result<Self> {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
            let start = unsafe { libc::mmap(ptr::null_mut(), MEMORY_SIZE, protection, flags, -1, 0) };
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let memory = Self(NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?);
            // SAFETY: the mapping is writable, larger than the code, owned by `memory` alone, and not yet
            // known to any guest.
            unsafe { ptr::copy_nonoverlapping(CODE.as_ptr(), memory.0.as_ptr().cast(), CODE.len()) };
            Ok(memory)
        }

        fn address(&self) -> usize {
            self.0.as_ptr().expose_provenance()
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: this is the whole mapping from `new`; the machine that used it was dropped before.
            unsafe { libc::munmap(self.0.as_ptr(), MEMORY_SIZE) };
        }
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    mod tests {
        use super::*;

        #[test]
        fn only_the_sum_is_a_valid_answer() {
            assert_eq!(checked(Some(5)).unwrap(), Halted { answer: 5 });
            assert!(matches!(checked(Some(4)), Err(GuestError::Answer(Some(4)))));
            assert!(matches!(checked(None), Err(GuestError::Answer(None))));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_missing_device_is_named_in_one_line() {
        let error = run(Path::new("/nowhere/kvm")).unwrap_err();
        assert_eq!(error.to_string(), "open /nowhere/kvm: No such file or directory (os error 2)");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_device_that_is_not_kvm_is_refused() {
        assert!(matches!(run(Path::new("/dev/null")), Err(GuestError::ApiVersion(-1))));
    }
}
