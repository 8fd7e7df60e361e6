//! The `stockade` command.

mod batch;
mod cli;
mod commands;
mod errors;
mod flags;
mod jail_file;
mod select;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, setrlimit};
use stockade_syscalls::inherited::limits;

use cli::{Cli, Command};
use errors::usage;
use terminal::logger;
use terminal::output::Failure;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The probe runs inside the jail of `demo` or `audit --probe`, and reads its own arguments.
    if arguments.get(1).is_some_and(|argument| argument == "probe") {
        return stockade_probe::run(&arguments[2..]);
    }
    match commands::completions::answer(&arguments, Cli::command) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => (),
        Err(error) => return usage::report(&error, &Cli::command(), arguments),
    }
    // A caller that ignores SIGCHLD passes this on through exec, and the kernel then keeps no exit status of a VMM.
    let _ = stockade_syscalls::signals::heed_children();
    raise_descriptor_limit();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            logger::set_up(cli.quiet, cli.verbose);
            let own_failure = usage::code_of_own_failure(&arguments);
            dispatch(cli.command).unwrap_or_else(|failure| failure.with_code(own_failure).report())
        }
        Err(error) => usage::report(&error, &Cli::command(), arguments),
    }
}

/// Allows this process as many file descriptors as its hard limit. Those that it starts get limits of their own.
fn raise_descriptor_limit() {
    // A failure leaves the limit as it was, and the command that needs more names the file that it cannot open.
    let Ok(Rlimit { maximum, .. }) = limits(Resource::Nofile) else { return };
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Create(args) => commands::create::create(&args),
        Command::Place(args) => commands::place::place(&args),
        Command::Unplace(args) => commands::unplace::unplace(&args),
        Command::Start(args) => commands::start::start(&args),
        Command::Wait(args) => commands::wait::wait(&args),
        Command::Kill(args) => commands::kill::kill(&args),
        Command::Stop(args) => commands::stop::stop(&args),
        Command::Rm(args) => commands::rm::rm(&args),
        Command::Logs(args) => commands::logs::logs(&args),
        Command::Plan(args) => commands::plan::plan(&args),
        Command::Profiles(args) => commands::profiles::profiles(&args),
        Command::Top(args) => commands::top::top(&args),
        Command::Ps(args) => commands::ps::ps(&args),
        Command::Inspect(args) => commands::inspect::inspect(&args),
        Command::Events(args) => commands::events::events(&args),
        Command::Exec(args) => commands::exec::exec(&args),
        Command::Shell(args) => commands::shell::shell(&args),
        Command::Gc(args) => commands::gc::gc(&args),
        Command::HostSetup(args) => commands::host_setup::host_setup(&args),
        Command::Audit(args) => commands::audit::audit(&args),
        Command::Doctor(args) => commands::doctor::doctor(&args),
        Command::Demo(args) => commands::demo::demo(&args),
        Command::Completions(args) => commands::completions::completions(&args),
        Command::Man(args) => commands::man::man(&args, Cli::command()),
        Command::Version(args) => commands::version::version(&args),
    }
}
