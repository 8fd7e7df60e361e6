//! The drop-in for Firecracker's jailer; see the library.

#![no_main]

stockade_syscalls::start!(jailer::run);
